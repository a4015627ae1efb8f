"""The command `iin-serve`."""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from iin_bundle import BundleError, read_bundle

from iin_service.environment import PORTS_PER_KIND, free_ports, port_is_free, private_cluster, serve_settings
from iin_service.guard import guarded_folder

__all__ = ["main"]

EPILOG = """examples:
  iin-serve build/digits/bundle
  iin-serve build/digits/bundle --port 9001 --replicas 2 --cpus 1
  iin-serve digits/bundle fashion/bundle              several models; callers choose: iin describe --application digits
  iin-serve build/digits/bundle --address auto        join the Ray cluster that this machine belongs to
  iin-serve newer/bundle --address auto --update      give the application that runs there this bundle, losing no call
  iin-serve build/digits/bundle -- iin describe       serve while a command runs, then stop
"""
READY_SECONDS = 60
ATTEMPT_SECONDS = 5  # one start of dozens waited for the answer to a first call that never came
NOT_YET = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED)
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="iin-serve",
        usage="iin-serve BUNDLE... [options] [-- COMMAND...]",
        description="Serve bundles over gRPC on Ray Serve, until Ctrl-C. With -- COMMAND, serve while that runs "
        "(with IIN_ADDRESS set), then stop and exit with its code.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "bundles",
        type=Path,
        nargs="+",
        metavar="BUNDLE",
        help="bundle directory, as iin-train exports it; each is an application of its own",
    )
    parser.add_argument("--port", type=int, default=9000, help="gRPC port; 0 takes a free one (default: 9000)")
    parser.add_argument(
        "--host",
        help="interface to listen on; the port has no TLS or authentication (default: 127.0.0.1, and all interfaces, "
        "0.0.0.0, on a cluster that is joined)",
    )
    parser.add_argument("--replicas", type=int, default=1, help="number of replicas of each (default: 1)")
    parser.add_argument("--cpus", type=int, default=1, help="cores, and threads, of a replica (default: 1)")
    parser.add_argument(
        "--gpus",
        type=float,
        default=0.0,
        help="GPUs of a replica; a fraction shares a GPU with others, and caps nobody's memory on it; needs the extra "
        "serve-gpu (default: 0)",
    )
    parser.add_argument("--name", help="name of the Serve application, for one bundle (default: the model's name)")
    parser.add_argument("--address", help="a running Ray cluster to join (default: start a private one)")
    parser.add_argument(
        "--update",
        action="store_true",
        help="with --address: give an application that runs there the bundle in place of its own, and end. Its calls "
        "go on. --replicas, --cpus and --gpus must be as they were, or its replicas are replaced",
    )
    parser.add_argument(
        "--proxy",
        choices=("haproxy", "python"),
        default="haproxy",
        help="Serve's ingress: HAProxy straight to the replicas, or Serve's own proxy in Python, which is slower, "
        "tells no fields of refused streams, does not look at the name of an only model and may compute a stream to "
        "its end after its caller left (default: haproxy)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code.

    0 stopped as asked, 1 failed, 2 wrong usage, 130 interrupted before it was ready; with a COMMAND that one's own.
    """
    words = sys.argv[1:] if arguments is None else arguments
    cut = words.index("--") if "--" in words else len(words)
    usage = parser()
    given = usage.parse_intermixed_args(words[:cut])  # bundles and options in any order
    command = words[cut + 1 :]
    if wrong := _wrong(given, command):
        usage.error(wrong)
    try:
        return _serve(given, command)
    except KeyboardInterrupt:
        return 130  # before it was ready
    except (BundleError, OSError, RuntimeError, ValueError) as error:
        print(f"iin-serve: {error}", file=sys.stderr)
        return 1


def _wrong(given: argparse.Namespace, command: list[str]) -> str | None:
    """What is wrong with the first option that cannot be as it was given."""
    private, most = given.address is None, PORTS_PER_KIND // len(given.bundles)
    checks = (
        (most >= 1 or not private, f"BUNDLE: expected at most {PORTS_PER_KIND}, got {len(given.bundles)}"),
        (
            given.replicas >= 1 and (given.replicas <= most or not private),
            f"--replicas: expected {f'1 to {most}' if private else 'at least 1'} of each bundle, got {given.replicas}",
        ),
        (given.cpus >= 1, f"--cpus: expected at least 1, got {given.cpus}"),
        (
            0 <= given.gpus <= 1 or (given.gpus > 1 and given.gpus.is_integer()),
            f"--gpus: expected 0 to 1, or a whole number above, got {given.gpus:g}",
        ),
        (0 <= given.port <= 65535, f"--port: expected 0 to 65535, got {given.port}; 0 takes a free one"),
        (
            not private or not given.update,
            "--update: expected the cluster where the application runs, got none; add --address auto there",
        ),
        (
            not command or not given.update,
            "--update: expected no command behind --, since it serves nothing itself; run it afterwards",
        ),
    )
    return next((text for fine, text in checks if not fine), None)


def _serve(given: argparse.Namespace, command: list[str]) -> int:
    bundles = _by_name(given.bundles, given.name)  # a bad bundle fails here, before anything is started
    host = given.host or ("127.0.0.1" if given.address is None else "0.0.0.0")
    ports = (one for one in free_ports(7) if one != given.port)  # two for Serve, four for a cluster of our own
    port, http_port = given.port or next(ports), next(ports)
    if given.address is None and not port_is_free(port, host):
        raise OSError(f"--port: expected a free port, but something listens on {port}; choose another, or 0")
    for number in STOP_SIGNALS:
        signal.signal(number, _interrupt)
    settings = serve_settings(haproxy=given.proxy == "haproxy")
    before = os.environ.copy()  # for the command, which is no part of Ray
    with guarded_folder() if given.address is None else contextlib.nullcontext() as folder:
        os.environ |= settings | (private_cluster(folder, ports) if folder is not None else {})

        # Ray reads its settings when it is imported.
        from iin_service import app

        deployed: list[str] = []
        what = "updating" if given.update else f"starting {given.replicas} replica(s) of"
        print(f"iin-serve: {what} {', '.join(bundles)} ...", file=sys.stderr, flush=True)
        try:
            if folder is not None:
                head = "127.0.0.1"
                app.start_ray(folder, replicas=given.replicas * len(bundles), cpus=given.cpus, gpus=given.gpus)
            else:
                head = app.join_ray(given.address, settings)
            for number in STOP_SIGNALS:  # Ray installed its own
                signal.signal(number, _interrupt)
            app.start_serve(host=host, port=port, http_port=http_port)
            for name, bundle in bundles.items():
                size = {"replicas": given.replicas, "cpus": given.cpus, "gpus": given.gpus}
                app.deploy(name, bundle, **size, update=given.update)
                if not given.update:
                    deployed.append(name)
            if given.update:
                print(f"updated: {', '.join(bundles)}")
                return 0
            endpoint = f"{head if host == '0.0.0.0' else host}:{port}"
            _wait_until_ready(endpoint, deployed, private=folder is not None)
            return _until_done(command, endpoint, before, deployed)
        finally:
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # a second one would leave half of it running
            if not given.update:
                print("iin-serve: stopping ...", file=sys.stderr, flush=True)
            app.stop(deployed, private=folder is not None)


def _by_name(paths: list[Path], name: str | None) -> dict[str, Path]:
    """Bundles by the name of the application that serves each."""
    if name is not None and len(paths) > 1:
        raise ValueError(f"--name: expected one bundle for it, got {len(paths)}; leave it out")
    found: dict[str, Path] = {}
    for path in paths:
        manifest = read_bundle(path).manifest
        own = name or manifest.name
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", own):  # as metadata, and unquoted in HAProxy's configuration
            raise ValueError(
                f"{path}: expected a name of letters A to Z, digits and, after the first of these, '.', '_' and '-', "
                f"which callers send and HAProxy tells apart, got {own!r}; serve it by itself with another --name"
            )
        if own in found:
            raise ValueError(
                f"{path}: expected models of different names, but {found[own]} is called {own} too; serve it by "
                "itself with another --name"
            )
        found[own] = path.resolve()
    return found


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _wait_until_ready(endpoint: str, applications: list[str], *, private: bool) -> None:
    """Return once a replica of each application answers through the ingress."""
    with grpc.insecure_channel(endpoint, [("grpc.enable_http_proxy", 0)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            for application in applications:
                _check(stub, application)
        except grpc.RpcError as error:
            likely = "the machine may be too busy; try again with less beside it, or fewer replicas"
            if not private:
                likely = "if Serve ran on the cluster before, it must have been started with this port and its services"
            raise RuntimeError(
                f"{endpoint}: expected the health service to answer within {READY_SECONDS} s, got "
                f"{error.code().name}: {error.details()}; {likely}"
            ) from error


def _check(stub: health_pb2_grpc.HealthStub, application: str) -> None:
    """Return once the application answers; HAProxy knows of a further one a moment after it runs."""
    end = time.monotonic() + READY_SECONDS
    while True:
        try:
            stub.Check(
                health_pb2.HealthCheckRequest(),
                timeout=min(max(end - time.monotonic(), 0.1), ATTEMPT_SECONDS),
                wait_for_ready=True,
                metadata=[("application", application)],
            )
            return
        except grpc.RpcError as error:
            if error.code() not in NOT_YET or time.monotonic() > end:
                raise
        time.sleep(0.1)


def _until_done(command: list[str], endpoint: str, environment: dict[str, str], applications: list[str]) -> int:
    """Wait for the command in `environment`, or without one for a signal."""
    if command:
        child = subprocess.Popen(command, env=environment | {"IIN_ADDRESS": endpoint})
        try:
            code = child.wait()
        except KeyboardInterrupt:
            child.terminate()
            code = child.wait()
        return code if code >= 0 else 128 - code  # of one that a signal ended, as shells have it
    print(f"ready: {endpoint}")
    for application in applications:
        which = f" --application {application}" if len(applications) > 1 else ""
        print(f"  iin describe --address {endpoint}{which}")
    print("Ctrl-C stops it.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    return 0
