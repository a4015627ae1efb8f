"""What every RPC has in common: memory is bounded, failures become statuses, calls are counted."""

import asyncio
import time
import traceback
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Protocol, TypeVar

from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from iin_service.errors import Idle, InvalidInput, NotFound, Overloaded, ServiceError, Unsupported, short
from iin_service.log import logger
from iin_service.recording import Recorder
from iin_service.streams import answered_in_order, callers_turn

__all__ = ["Answering", "CallContext", "Fault", "Kept"]

Answer = TypeVar("Answer")
Request = TypeVar("Request", bound=Message)
Given = TypeVar("Given")

# Of all requests under way in a replica. Half as many of the answers that streams keep, and of the requests of Sample
# and Traverse; a quarter of what analyses work with.
MAX_BYTES_HELD = 512 * 1024 * 1024
MAX_STREAMS = 256  # open at once: each holds a place of the replica, busy or not
IDLE_SECONDS = 300.0  # that a stream stays open without a message either way
MOST_CHARACTERS = 2000  # of a message, which travels in metadata, twice
STATUS_DETAILS = "grpc-status-details-bin"
CODES: dict[type[ServiceError], StatusCode] = {
    Idle: StatusCode.DEADLINE_EXCEEDED,
    InvalidInput: StatusCode.INVALID_ARGUMENT,
    NotFound: StatusCode.NOT_FOUND,
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


class Fault:
    """Why a request has no answer, as the caller is told."""

    def __init__(self, error: Exception) -> None:
        """An error that is not the service's own is logged under an id, and the caller gets the id only."""
        self.field, self.description = "", ""
        if isinstance(error, ServiceError):
            self.code, self.message = CODES[type(error)], short(str(error), MOST_CHARACTERS)
            if isinstance(error, InvalidInput):
                self.field, self.description = error.field, error.description
            return
        identifier = uuid.uuid4().hex
        # Not as exc_info: Serve puts a print of its own in Python's place, which spoils what logging makes of that.
        logger.error("internal error %s\n%s", identifier, "".join(traceback.format_exception(error)))
        self.code = StatusCode.INTERNAL
        self.message = f"internal error {identifier}; the service's log has the cause under this id"

    def set_on(self, context: CallContext) -> None:
        """Make it the status of a call."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.field:
            detail = PackedAny()
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.description)
            detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
            status.details.append(detail)
        context.set_code(self.code)
        context.set_details(self.message)
        context.set_trailing_metadata([(STATUS_DETAILS, status.SerializeToString())])


class Kept:
    """What one stream has begun and its caller has not taken yet."""

    def __init__(self, answering: "Answering") -> None:
        """Nothing yet."""
        self._answering = answering
        self._open = True
        self.messages = self.bytes = self.waiting = 0
        self.turn = asyncio.Lock()
        """Held by the message that begins next: a later one that overtook it could keep what it waits for."""

    def read(self, size: int) -> None:
        """A message of `size` bytes is read, and waits until it may begin."""
        if self._open:
            self.waiting += size
            self._answering.waits(size)

    def begun(self, size: int, most: int) -> None:
        """It begins, and keeps `most` bytes for its answer until that is there: no answer to it has more."""
        self.messages += 1
        self.read(-size)
        self._keep(most)

    def answered(self, size: int, most: int) -> None:
        """There is an answer of `size` bytes in place of the `most` that were kept for it."""
        self._keep(size - most)

    def taken(self, size: int) -> None:
        """An answer of `size` bytes is the caller's."""
        self.messages -= 1
        self._keep(-size)

    def dropped(self) -> None:
        """All of it is let go. What its tasks tell from now on counts no more: one may outlive its cancellation."""
        self.messages = 0
        self.read(-self.waiting)
        self._keep(-self.bytes)
        self._open = False

    def _keep(self, size: int) -> None:
        if self._open:
            self.bytes += size
            self._answering.keep(size)


class Answering:
    """Answers the calls of one replica."""

    def __init__(self, recorder: Recorder) -> None:
        """Calls are counted by `recorder`."""
        self._recorder = recorder
        self._bytes = self._waiting = self._kept = self._requests = self._working = self._streams = 0
        self._left = asyncio.Event()
        """Set whenever a request begins or leaves, or an answer is taken."""

    async def once(
        self,
        rpc: str,
        size: int,
        answer: Callable[[], Awaitable[Answer]],
        failed: Callable[[Fault], Answer],
        *,
        kept: Kept | None = None,
        most: int = 0,
    ) -> Answer:
        """The answer to one request of `size` bytes, or what `failed` makes of the reason that there is none.

        One of a stream, with what that has `kept`, waits for room where the replica holds too much, and leaves half
        of it to the others; no answer to it has more than `most` bytes.
        """
        with self._counted(rpc) as outcome:
            try:
                if kept is not None:
                    await self._begun(size, most, kept)
                with self._held(size):
                    return await answer()
            except Exception as error:
                fault = Fault(error)
                outcome.code = fault.code.name
                return failed(fault)

    async def unary(
        self,
        rpc: str,
        request: Message,
        answer: Callable[[], Awaitable[Answer]],
        context: CallContext,
        nothing: Answer,
    ) -> Answer:
        """The answer, or `nothing` beside a status that says why. Ray drops the status's details on a raise."""

        def failed(fault: Fault) -> Answer:
            fault.set_on(context)
            return nothing

        return await self.once(rpc, request.ByteSize(), answer, failed)

    async def stream(
        self,
        rpc: str,
        request: Message,
        begin: Callable[[], Awaitable[Iterable[Callable[[], Awaitable[Message]]]]],
        context: CallContext,
    ) -> AsyncGenerator[Any]:
        """What each function that `begin` gives makes, ended by a status if one fails.

        One is called when the answer before it is taken, so a stream keeps one answer, and its request to the end.
        """
        with self._counted(rpc) as outcome:
            try:
                with self.opened(request.ByteSize()) as kept:
                    for make in await begin():
                        found = await make()
                        size = found.ByteSize()
                        kept.answered(size, 0)
                        with callers_turn(IDLE_SECONDS, kept.dropped):
                            yield found
                        del found  # it counts no more
                        kept.answered(0, size)
            except Exception as error:
                fault = Fault(error)
                outcome.code = fault.code.name
                fault.set_on(context)

    async def in_order(
        self,
        kept: Kept,
        requests: AsyncIterator[Given],
        answer: Callable[[Given], Awaitable[tuple[Answer, int]]],
        window: int,
    ) -> AsyncGenerator[Answer]:
        """The answers to what comes on a stream, which `answer` gives with their bytes; see `answered_in_order`.

        A caller who is given up keeps no answers from then on, but for the place of the stream until the call ends.
        """
        answers = answered_in_order(requests, answer, window, idle_seconds=IDLE_SECONDS, given_up=kept.dropped)
        async with aclosing(answers):
            async for found, size in answers:
                yield found
                del found  # it counts no more
                kept.taken(size)

    @contextmanager
    def opened(self, size: int = 0) -> Iterator[Kept]:
        """A place for a stream; who leaves it lets go of all that it keeps, and of `size` bytes of its one request.

        These count by themselves: the answers that streams keep may fill their room for as long as there is work.

        Raises:
            Overloaded: where there is none left, or no room for a request that is more than a place's share of it.

        """
        if self._streams >= MAX_STREAMS:
            raise Overloaded(f"{MAX_STREAMS} streams are open, as many as may be; retry later")
        most = MAX_BYTES_HELD // 2
        if size > most // MAX_STREAMS and self._requests and self._requests + size > most:
            told = f"streams of answers hold requests of {self._requests} bytes, at most {most} with a large one"
            raise Overloaded(f"{told}; retry later")
        kept = Kept(self)
        self._requests += size
        self._streams += 1
        try:
            yield kept
        finally:
            self._streams -= 1
            kept.dropped()
            self._requests -= size

    @contextmanager
    def works(self, size: int) -> Iterator[None]:
        """Count so many bytes that an analysis works with beside its request; a lone one is always let in.

        Raises:
            Overloaded: where there is no room for them.

        """
        most = MAX_BYTES_HELD // 4
        if self._working and self._working + size > most:
            raise Overloaded(f"analyses work with {self._working} bytes, at most {most}; retry later")
        self._working += size
        try:
            yield
        finally:
            self._working -= size

    def ended(self, rpc: str, error: Exception, context: CallContext) -> None:
        """A stream of requests is refused, given up or broken, which counts as a call that took no time."""
        fault = Fault(error)
        fault.set_on(context)
        self._recorder.call(rpc, fault.code.name, 0.0)

    async def messages(self, requests: AsyncIterator[Request], kept: Kept) -> AsyncGenerator[tuple[Request, int]]:
        """The messages of a stream and their bytes, each read when there is room, or when all before it have begun.

        Raises:
            InvalidInput: where one cannot be read; those before it are answered.

        """
        number = 0
        async for message in requests:
            number += 1
            size = message.ByteSize()
            kept.read(size)
            yield message, size
            del message  # else it would be there until the next one comes
            while kept.waiting and self._waiting + self._bytes > MAX_BYTES_HELD // 2:
                self._left.clear()
                await self._left.wait()
        # Serve ends a stream with a message that it cannot read as if the caller had ended it, but for this.
        if getattr(requests, "is_cancelled", bool)():
            raise InvalidInput(
                f"requests[{number}]", "a message of this RPC", "bytes that are none", "send those from it on again"
            )

    def waits(self, size: int) -> None:
        """Count so many bytes of messages more, or less, that are read and wait until they may begin."""
        self._waiting += size
        if size < 0:
            self._left.set()

    def keep(self, size: int) -> None:
        """Count so many bytes more, or less, that streams keep."""
        self._kept += size
        if size < 0:
            self._left.set()

    async def _begun(self, size: int, most: int, kept: Kept) -> None:
        """Wait for room for a message of a stream, after those before it."""
        async with kept.turn:
            while not self._room(size, most, kept):
                self._left.clear()
                await self._left.wait()
            kept.begun(size, most)

    def _room(self, size: int, most: int, kept: Kept) -> bool:
        """Whether a request of a stream may begin; one at a time always may, whoever else takes no answers."""
        if kept.messages and self._kept + most > MAX_BYTES_HELD // 2:
            return False
        return not self._bytes or self._bytes + size <= MAX_BYTES_HELD // 2

    @contextmanager
    def _held(self, size: int) -> Iterator[None]:
        """Count the bytes of a request as held while it is worked on; a lone request is always let in."""
        if self._bytes and self._bytes + size > MAX_BYTES_HELD:
            raise Overloaded(f"requests of {self._bytes} bytes are under way, at most {MAX_BYTES_HELD}; retry later")
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size
            self._left.set()

    @contextmanager
    def _counted(self, rpc: str) -> "Iterator[_Outcome]":
        outcome, started = _Outcome(), time.perf_counter()
        try:
            yield outcome
        except (asyncio.CancelledError, GeneratorExit):
            outcome.code = StatusCode.CANCELLED.name
            raise
        finally:
            self._recorder.call(rpc, outcome.code, time.perf_counter() - started)


class _Outcome:
    """How a call ended."""

    code = StatusCode.OK.name
