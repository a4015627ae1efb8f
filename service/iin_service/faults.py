"""Failures as gRPC statuses: the one table of codes, the details that name the field, and the log."""

import logging
import traceback
import uuid
from typing import Protocol

from google.protobuf.any_pb2 import Any as PackedAny
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from iin_api.v1 import interpretation_pb2 as pb

from iin_service.errors import Idle, InvalidInput, NotFound, Overloaded, ServiceError, Unsupported, short

__all__ = ["CallContext", "Fault", "logger"]

logger = logging.getLogger("ray.serve.iin_service")
"""Serve's own logger is its parent, which gives it a level and a file, `serve/replica_*.log` in Ray's folder of logs.

Standard error would not do: Serve logs it at INFO, which that level drops.
"""
MOST_BYTES = 1500  # of a message: metadata carries it percent-encoded, three times as long at worst, and in base64
STATUS_DETAILS = "grpc-status-details-bin"
CODES: dict[type[ServiceError], StatusCode] = {
    Idle: StatusCode.DEADLINE_EXCEEDED,
    InvalidInput: StatusCode.INVALID_ARGUMENT,
    NotFound: StatusCode.NOT_FOUND,
    Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    Unsupported: StatusCode.FAILED_PRECONDITION,
}


class CallContext(Protocol):
    """What the RPCs need of Ray's context of a call, which unlike grpc's own takes metadata as a list."""

    def set_code(self, code: StatusCode) -> None: ...

    def set_details(self, details: str) -> None: ...

    def set_trailing_metadata(self, metadata: list[tuple[str, str | bytes]]) -> None: ...


class Fault:
    """Why a request has no answer, as the caller is told."""

    def __init__(self, error: Exception) -> None:
        """An error that is not the service's own is logged under an id, and the caller gets the id only."""
        self.field, self.description = "", ""
        if isinstance(error, ServiceError):
            self.code, self.message = CODES[type(error)], short(str(error), MOST_BYTES)
            if isinstance(error, InvalidInput):
                self.field, self.description = error.field, error.description
            return
        identifier = uuid.uuid4().hex
        # Not as exc_info: Serve puts a print of its own in Python's place, which spoils what logging makes of that.
        logger.error("internal error %s\n%s", identifier, "".join(traceback.format_exception(error)))
        self.code = StatusCode.INTERNAL
        self.message = f"internal error {identifier}; the service's log has the cause under this id"

    def item_error(self) -> pb.ItemError:
        """The fault as the answer to one message of a stream."""
        violations = [pb.FieldViolation(field=self.field, description=self.description)] if self.field else []
        return pb.ItemError(code=self.code.value[0], message=self.message, violations=violations)

    def set_on(self, context: CallContext) -> None:
        """Make the fault the status of a call."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.field:
            detail = PackedAny()
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.description)
            detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
            status.details.append(detail)
        context.set_code(self.code)
        context.set_details(self.message)
        context.set_trailing_metadata([(STATUS_DETAILS, status.SerializeToString())])
