"""The RPCs: each converts, calls the engine and converts back; one table maps errors to codes."""

import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from iin_api.v1 import interpretation_pb2 as pb

from iin_service import responses
from iin_service.engine import Engine, Trace
from iin_service.errors import InvalidInput, Overloaded, ServiceError, Unsupported
from iin_service.requests import RequestReader

__all__ = ["CallContext", "InterpretationRpcs"]

logger = logging.getLogger(__name__)
Response = TypeVar("Response")

MAX_BYTES_HELD = 512 * 1024 * 1024  # of all requests under way in a replica
STATUS_DETAILS = "grpc-status-details-bin"
CODES: dict[type[ServiceError], StatusCode] = {
    InvalidInput: StatusCode.INVALID_ARGUMENT,
    Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    Unsupported: StatusCode.FAILED_PRECONDITION,
}


class CallContext(Protocol):
    """What the RPCs need of a gRPC call's context."""

    def set_code(self, code: StatusCode) -> None:
        """Set the status code of the answer."""

    def set_details(self, details: str) -> None:
        """Set the status message of the answer."""

    def set_trailing_metadata(self, metadata: list[tuple[str, str | bytes]]) -> None:
        """Set the metadata that follows the answer."""


class InterpretationRpcs:
    """InterpretationService for one engine."""

    def __init__(self, engine: Engine) -> None:
        """Answer with `engine`."""
        self._engine = engine
        self._reader = RequestReader(engine.manifest, engine.limits)
        self._bytes = 0

    async def interpret(self, request: pb.InterpretRequest, context: CallContext) -> pb.InterpretResponse:
        """Translate images or latents into factors."""

        async def answer() -> pb.InterpretResponse:
            trace = Trace()
            given = await self._reader.inputs(request.inputs, "inputs", resize=request.resize, trace=trace)
            return responses.interpretation(await self._engine.interpret(given, trace), trace)

        return await self._answered(answer, request, context, pb.InterpretResponse())

    async def edit(self, request: pb.EditRequest, context: CallContext) -> pb.EditResponse:
        """Change factors of the targets and decode the result."""

        async def answer() -> pb.EditResponse:
            trace, read, resize = Trace(), self._reader, request.resize
            image_format = read.image_format(request.format)
            targets = await read.inputs(request.targets, "targets", resize=resize, trace=trace)
            count = sum(len(one.items) for one in targets)
            edits = await read.edits(request.edits, count, resize=resize, trace=trace)
            result = await self._engine.edit(targets, edits, trace)
            return await responses.edited(result, self._engine.manifest.image, image_format, trace)

        return await self._answered(answer, request, context, pb.EditResponse())

    async def sample(self, request: pb.SampleRequest, context: CallContext) -> AsyncIterator[pb.SampleResponse]:
        """Draw from the prior and decode, several images to a message."""
        try:
            with self._held(request):
                trace = Trace()
                image_format = self._reader.image_format(request.format)
                temperature, fixed = await self._reader.sample(request, trace)
                parts = self._engine.sample(
                    request.count, seed=request.seed, temperature=temperature, fixed=fixed, trace=trace
                )
                async for first, result, spent in parts:
                    yield await responses.samples(first, result, self._engine.manifest.image, image_format, spent)
        except Exception as error:
            _set_status(error, context)

    async def get_model(self, request: pb.GetModelRequest, context: CallContext) -> pb.GetModelResponse:
        """Describe the model and the limits."""
        return await self._answered(self._model, request, context, pb.GetModelResponse())

    async def _model(self) -> pb.GetModelResponse:
        return responses.model(self._engine.manifest, self._engine.limits)

    async def _answered(
        self, answer: Callable[[], Awaitable[Response]], request: Message, context: CallContext, nothing: Response
    ) -> Response:
        """The answer, or `nothing` beside a status that says why. Ray drops the status's details on a raise."""
        try:
            with self._held(request):
                return await answer()
        except Exception as error:
            _set_status(error, context)
            return nothing

    @contextmanager
    def _held(self, request: Message) -> Iterator[None]:
        """Count the bytes of a request as held while it is worked on; a lone request is always let in."""
        size = request.ByteSize()
        if self._bytes and self._bytes + size > MAX_BYTES_HELD:
            raise Overloaded(f"requests of {self._bytes} bytes are under way, at most {MAX_BYTES_HELD}; retry later")
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size


def _set_status(error: Exception, context: CallContext) -> None:
    """Tell the caller about `error`."""
    if isinstance(error, ServiceError):
        code, message = CODES[type(error)], str(error)
    else:
        identifier = uuid.uuid4().hex
        logger.error("internal error %s", identifier, exc_info=error)
        code, message = (
            StatusCode.INTERNAL,
            f"internal error {identifier}; the service's log has the cause under this id",
        )
    status = status_pb2.Status(code=code.value[0], message=message)
    if isinstance(error, InvalidInput):
        detail = PackedAny()
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.description)
        detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        status.details.append(detail)
    context.set_code(code)
    context.set_details(message)
    context.set_trailing_metadata([(STATUS_DETAILS, status.SerializeToString())])
