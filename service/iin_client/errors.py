"""How a failed call is reported."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

__all__ = ["CallError", "Violation", "call_error"]

_DETAILS_KEY = "grpc-status-details-bin"
# gRPC's details where the client's deadline passed, of a call and of a stream; those of the service's deadlines differ.
_OWN_DEADLINE = ("Deadline Exceeded", "Stream removed (Deadline Exceeded)")
# Ray's details where the metadata `application` is missing or wrong. Its advice is no use to callers of this client.
_RAYS_ADVICE = " Ping /ray.serve.RayServeAPIService/ListApplications for available applications."
_RAYS_UNNAMED = "Application metadata not set"
# gRPC's details where it cannot use parts of `Tls`; it tells when it connects.
_BAD_TLS = "Failed to create security handshaker"


@dataclass(frozen=True)
class Violation:
    """What was wrong with one field of a request."""

    field: str
    """Path of the field in the request message, for example `edits[0].shift.direction`."""
    description: str
    """What was expected and what was given."""


class CallError(Exception):
    """A call failed; `str()` gives `message`."""

    def __init__(self, code: grpc.StatusCode, message: str, violations: tuple[Violation, ...] = ()) -> None:
        super().__init__(code, message, violations)  # pickle calls the class with these
        self.code = code
        """Status of the call; INVALID_ARGUMENT for what the caller got wrong."""
        self.message = message
        """What happened and, where it is not plain, what to do about it."""
        self.violations = violations
        """The fields at fault, empty unless the service named some."""

    def __str__(self) -> str:
        return self.message


# Any: gRPC has no common type for the exceptions of blocking and asyncio calls that has these methods.
def call_error(error: Any, *, address: str, timeout: float) -> CallError:
    """Turns gRPC's exception for a call to `address` with a deadline of `timeout` seconds into our own."""
    code = error.code()
    details = error.details() or "no details"
    violations = _violations(error)
    match code:
        case grpc.StatusCode.UNAVAILABLE if _BAD_TLS in details:
            message = (
                "tls: expected certificates, a key that belongs to client_certificate, and a host as server_name, got "
                f"some that gRPC cannot use; give others ({details})"
            )
        case grpc.StatusCode.UNAVAILABLE:
            message = (
                f"nothing answers at {address}; is the service running (iin-serve BUNDLE), done loading, and TLS on at "
                f"both ends or at none? ({details})"
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED if details in _OWN_DEADLINE:
            remedy = "check the address, allow more time (--timeout, in Python timeout=) or ask for less"
            message = f"no whole answer from {address} within {timeout:g} s; {remedy}"
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            message = f"{details} (RESOURCE_EXHAUSTED); send fewer items a call or try again later"
        case grpc.StatusCode.NOT_FOUND:
            what = details.removesuffix(_RAYS_ADVICE).removesuffix(".")
            if what == _RAYS_UNNAMED:
                what = "no application is named, and the service has several or, while it starts or stops, none"
            message = (
                f"{what} (NOT_FOUND); name one of the models served at {address} with --application (in Python "
                "application=), iin models lists them"
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            message = f"{address} does not serve iin_api.v1.InterpretationService ({details})"
        case _:
            # Where one field is at fault the service's message states it already.
            unsaid = [f"{v.field}: {v.description}" for v in violations if v.description not in details]
            message = "; ".join([f"{details} ({code.name})", *unsaid])
    return CallError(code, message, violations)


def _violations(error: Any) -> tuple[Violation, ...]:
    status = dict(error.trailing_metadata() or ()).get(_DETAILS_KEY, b"")
    found = []
    with suppress(DecodeError):  # of a gateway that writes something else there
        for detail in status_pb2.Status.FromString(status).details:
            bad_request = error_details_pb2.BadRequest()
            if detail.Unpack(bad_request):
                found += [Violation(v.field, v.description) for v in bad_request.field_violations]
    return tuple(found)
