"""What both clients share: the channel, the metadata and deadline of a call, and its errors."""

import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc
from iin_api.v1.interpretation_pb2_grpc import InterpretationServiceStub

from iin_client.channel import HOST_AND_PORT, Tls, open_channel
from iin_client.errors import call_error

__all__ = ["NOT_READY", "PAUSE_S", "REFUSED_BY_GATEWAY", "Application", "BaseClient"]

# How a gateway refuses calls of Ray's own methods.
REFUSED_BY_GATEWAY = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED)
# A starting service refuses calls with the first and, until it knows its applications, with the second; the third is an
# attempt that got no answer.
NOT_READY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED)
PAUSE_S = 0.25
_ATTEMPT_S = 5.0  # an attempt that is never answered must leave time for the next
_LONGEST_S = 1e9  # gRPC takes a deadline beyond its range for one in the past

Application: TypeAlias = str | Mapping[str, float] | None
"""Name of the model to use, or names with the share of the calls that each gets; None where one alone is served."""


class BaseClient:
    """What both clients share."""

    _grpc: Any = grpc
    """Module that makes the channel, `grpc` or `grpc.aio`."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 30.0,
        application: Application = None,
        tls: Tls | None = None,
        token: str | None = None,
    ) -> None:
        if not _is_address(address, encrypted=tls is not None):
            raise ValueError(
                f"address: expected host:port, or a gRPC target such as dns:///iin.svc:9000, got {address!r}; "
                "name a port from 1 to 65535 (with TLS it is 443 if left out), and leave http:// and https:// out"
            )
        if not 0 < timeout <= _LONGEST_S:
            raise ValueError(
                f"timeout: expected seconds above 0, at most {_LONGEST_S:g}, got {timeout:g}; 30 suits most calls"
            )
        self._address, self._timeout = address, timeout
        shares = application if isinstance(application, Mapping) else {application: 1.0} if application else {}
        if shares and not (min(shares.values()) >= 0 and 0 < sum(shares.values()) < math.inf):
            raise ValueError(f"application: expected shares of at least 0, not all 0 nor infinite, got {dict(shares)}")
        for name in shares:
            if not _is_header_text(name):
                raise ValueError(f"application: expected printable ASCII, got {name!r}; name a model that is served")
        self._applications, self._shares = list(shares), list(shares.values())
        if token is not None and tls is None:
            raise ValueError(
                "token (--token-file, IIN_TOKEN): expected tls (--tls) beside it, since anyone on the way could read "
                "it; give both"
            )
        if token is not None and not _is_header_text(token):  # it is not shown
            raise ValueError(
                "token (--token-file, IIN_TOKEN): expected one line of printable ASCII, got something else; give the "
                "token alone, without a line break"
            )
        self._token = () if token is None else (("authorization", f"Bearer {token}"),)
        self._channel = open_channel(self._grpc, address, tls)
        self._stub = InterpretationServiceStub(self._channel)
        # Ray Serve's own method that names the applications.
        self._list_applications = self._channel.unary_unary("/ray.serve.RayServeAPIService/ListApplications")

    def _options(self) -> dict[str, Any]:
        """Deadline and metadata of one call."""
        return {"timeout": self._timeout, "metadata": self._metadata()}

    def _remaining(self, options: dict[str, Any], end: float) -> dict[str, Any]:
        """`options` of a further call, which must end when the first would have: at `end` of the monotonic clock."""
        return {**options, "timeout": max(end - time.monotonic(), 0.0)}

    def _attempt(self, remaining: float) -> dict[str, Any]:
        """Options of one attempt to reach the service, `remaining` seconds before the last must end."""
        return {**self._options(), "timeout": max(min(remaining, _ATTEMPT_S), 0.0), "wait_for_ready": True}

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of one call."""
        if not self._applications:
            return self._token
        return (("application", random.choices(self._applications, self._shares)[0]), *self._token)

    @contextmanager
    def _errors(self, timeout: float | None = None) -> Iterator[None]:
        """Turns gRPC's errors into CallError; `timeout` is the deadline in seconds where it is not the client's."""
        try:
            yield
        except grpc.RpcError as error:
            seconds = self._timeout if timeout is None else timeout
            raise call_error(error, address=self._address, timeout=seconds) from error


def _is_address(address: str, *, encrypted: bool) -> bool:
    """Whether gRPC can call `address`: it takes a missing port for 443, and one out of range for another."""
    if found := HOST_AND_PORT.fullmatch(address):
        port = found["port"]
        return port.isdecimal() and 1 <= int(port) <= 65535 if port else encrypted
    return address != "" and not address.startswith(("http://", "https://"))


def _is_header_text(text: str) -> bool:
    """Whether a header can hold `text`: one line of printable ASCII, not empty."""
    return text != "" and text.isascii() and text.isprintable()
