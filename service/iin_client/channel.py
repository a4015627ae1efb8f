"""The gRPC channel: TLS, message sizes, retries and load balancing."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

__all__ = ["CHANNEL_OPTIONS", "HOST_AND_PORT", "MAX_MESSAGE_BYTES", "Tls", "channel_options", "open_channel"]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024

HOST_AND_PORT = re.compile(r"(?:dns:(?://[^/]*/)?)?(?P<host>[^:/,]+|\[[^]]*\])(?::(?P<port>-?[0-9]*))?")
"""An address that names one host; the port may be missing or empty. gRPC knows other kinds of targets."""

_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")  # hosts that https_proxy and http_proxy do not hold for

_SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                # Holds for every method of the services; all of them are idempotent.
                "name": [{"service": "iin_api.v1.InterpretationService"}, {"service": "ray.serve.RayServeAPIService"}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.service_config", _SERVICE_CONFIG),
    # gRPC does not retry a request that outgrows this buffer, 256 KiB by default: too little for pictures.
    ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
    # Servers drop clients that ping more often than every 5 minutes unless told otherwise.
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # By default the pause grows to 2 minutes, long after a restarted service is back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


@dataclass(frozen=True, kw_only=True)
class Tls:
    """How to trust the service and, for mutual TLS, how to be trusted by it."""

    root_certificates: str | Path | None = None
    """PEM file of the authorities to trust; None trusts gRPC's default ones."""
    client_key: str | Path | None = None
    """PEM file of the client's private key; needs `client_certificate`."""
    client_certificate: str | Path | None = None
    """PEM file of the client's certificate chain; needs `client_key`."""
    server_name: str | None = None
    """Name that the service's certificate must carry, where it is not the address's."""

    def __post_init__(self) -> None:
        if (self.client_key is None) != (self.client_certificate is None):
            given = "client_key" if self.client_certificate is None else "client_certificate"
            raise ValueError(f"tls: expected client_key and client_certificate, got {given} only; give the other too")


# Any: gRPC's two modules have no common type, nor have their channels.
def open_channel(module: Any, address: str, tls: Tls | None) -> Any:
    """Channel of `module`, `grpc` or `grpc.aio`, to `address` (`host:port` or a gRPC target); plaintext without `tls`.

    OSError for a file of `tls` that cannot be read, ValueError for one that is no PEM file.
    """
    options = channel_options(address, tls)
    if tls is None:
        return module.insecure_channel(address, options=options)
    return module.secure_channel(address, _credentials(tls), options=options)


def channel_options(address: str, tls: Tls | None) -> list[tuple[str, int | str]]:
    """Options of a channel to `address`."""
    options = [*CHANNEL_OPTIONS]
    if (found := HOST_AND_PORT.fullmatch(address)) and found["host"] in _THIS_MACHINE:  # as gRPC for Go does
        options.append(("grpc.enable_http_proxy", 0))
    scheme, _, listed = address.partition(":")
    if tls is None and scheme in ("ipv4", "ipv6") and "," in listed:
        # gRPC would name a list, `ipv4:A:9000,B:9000`, as the host it calls, which HAProxy refuses: its first is named.
        options.append(("grpc.default_authority", listed.split(",")[0]))
    if tls is not None and tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(tls.root_certificates, "root_certificates"),
        private_key=_pem(tls.client_key, "client_key"),
        certificate_chain=_pem(tls.client_certificate, "client_certificate"),
    )


def _pem(path: str | Path | None, field: str) -> bytes | None:
    if path is None:
        return None
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise OSError(f"tls.{field}: cannot read {path}: {error.strerror}") from None
    if b"-----BEGIN" not in data:  # gRPC would tell when it connects, and not which file
        raise ValueError(
            f"tls.{field}: expected a PEM file, with a line -----BEGIN ..., got {path} without; name another"
        )
    return data
