"""Ray's environment for this service; it must be set before Ray is imported, in the first process."""

import errno
import os
import random
import socket
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, islice
from pathlib import Path

from iin_service.guard import MARKER
from iin_service.responses import MAX_MESSAGE_BYTES

__all__ = ["PORTS_PER_KIND", "free_ports", "port_is_free", "private_cluster", "serve_settings"]

PORTS_PER_KIND = 64  # replicas of one node each take one port for gRPC and one for HTTP
WINDOW_BYTES = 1 << 20
PORTS = range(31_001, 32_768)


def serve_settings(*, haproxy: bool) -> dict[str, str]:
    """Settings of Ray Serve itself, for a private cluster and for one that is joined.

    Chosen one by one where they were measured to help (docs/SERVING.md), not by
    RAY_SERVE_THROUGHPUT_OPTIMIZED, which overrides other choices as well.
    """
    settings = {
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(MAX_MESSAGE_BYTES),
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",  # the RPCs hold the loop seldom, and briefly
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "2000",
        "RAY_SERVE_LOG_TO_STDERR": "0",
    }
    if haproxy:
        settings |= {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_HAPROXY_NBTHREAD": "1",
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        }
        # HAProxy 2.8 reads a connection no further while one of its streams has a receiver that does not read: a
        # slow caller would stop all others, if they shared a connection to the replica.
        for side, streams in (("FE", "1000"), ("BE", "1")):
            settings[f"RAY_SERVE_HAPROXY_H2_{side}_INITIAL_WINDOW_SIZE"] = str(WINDOW_BYTES)
            settings[f"RAY_SERVE_HAPROXY_H2_{side}_MAX_CONCURRENT_STREAMS"] = streams
    return settings


def private_cluster(folder: Path, ports: Iterator[int]) -> dict[str, str]:
    """Settings for a Ray of our own with its files in `folder` and four of `ports`; it clashes with no other."""
    first = _free_range(2 * PORTS_PER_KIND)
    middle, last = first + PORTS_PER_KIND, first + 2 * PORTS_PER_KIND
    return {
        MARKER: str(folder),
        "RAY_worker_niceness": "0",  # Ray's 15 lets any other process starve the replicas and HAProxy
        # A cluster of one machine has nothing to steer as often as Ray does, nor a dashboard to feed.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",
        "REPORTER_UPDATE_INTERVAL_MS": "60000",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled"),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(next(ports)),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(next(ports)),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(next(ports)),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(next(ports)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(middle),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(middle),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(last),
    }


def free_ports(count: int) -> list[int]:
    """`count` different ports that nobody listens on now.

    Not from the range (32768 and up on Linux) from which the system gives one to whoever connects to something: between
    this call and the server's own, seconds later, it would. Nor of Ray's own, 10002 to 19999 and 30000 to 31000.
    """
    drawn = random.SystemRandom().sample(PORTS, len(PORTS))  # two that start at once seldom draw the same
    free = list(islice(filter(port_is_free, drawn), count))
    if len(free) < count:
        raise OSError(f"expected {count} free ports between {PORTS[0]} and {PORTS[-1]}, found {len(free)}")
    return free


def port_is_free(port: int, host: str = "") -> bool:
    """True where a server could listen on `port` of `host` (by default of every interface).

    Raises:
        OSError: where no server could, even if none does: it is no address of this machine, or not allowed.

    """
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise OSError(f"{host}:{port}: expected an IPv4 address and a port to listen on: {error}") from error
    return True


def _free_range(count: int) -> int:
    """First of `count` neighbouring free ports, below the range that systems hand out by themselves."""
    start = 20_000 + os.getpid() % (10_000 // count) * count
    for first in chain(range(start, 30_000 - count, count), range(20_000, start, count)):
        if all(port_is_free(port) for port in (first, first + count // 2, first + count - 1)):
            return first
    raise OSError(f"expected {count} neighbouring free ports between 20000 and 30000, found none")
