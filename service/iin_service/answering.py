"""What every RPC has in common: memory is bounded, failures become statuses, calls are counted."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from google.protobuf.message import Message
from grpc import StatusCode

from iin_service import responses
from iin_service.errors import InvalidInput
from iin_service.faults import CallContext, Fault
from iin_service.items import Trace
from iin_service.recording import Recorder
from iin_service.room import Kept, Room
from iin_service.streams import answered_in_order, callers_turn

__all__ = ["Answering"]

Answer = TypeVar("Answer")

IDLE_SECONDS = 300.0  # that a stream stays open without a message either way


class Answering:
    """Answers the calls of one replica."""

    def __init__(self, recorder: Recorder) -> None:
        """Calls are counted by `recorder`."""
        self._recorder = recorder
        self.room = Room()

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
                    await self.room.begun(size, most, kept)
                with self.room.held(size):
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
                with self.room.opened(request.ByteSize()) as kept:
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

    # Any: the messages of two RPCs, which have the same fields and no common type.
    async def each(
        self,
        rpc: str,
        requests: AsyncIterator[Any],
        work: Callable[[Any, Trace], Awaitable[Message]],
        most_of: Callable[[Any], int],
        kind: Any,
        window: int,
        context: CallContext,
    ) -> AsyncGenerator[Any]:
        """The answer, of a `kind`, that `work` finds for each message of a stream; see `answered_in_order`.

        Bulk work waits its turn when there is much. An answer has at most as many bytes as `most_of` its request says.
        A caller who is given up keeps no answers from then on, but for the place of the stream until the call ends.
        """

        async def answer(read: tuple[Any, int]) -> tuple[Any, int]:
            """The answer and its bytes to a message and its own: counted once, which costs as much as sending does."""
            message, size = read
            trace = Trace(patient=True)  # now: it may wait for room before it is worked on
            most = min(most_of(message.request), responses.MAX_MESSAGE_BYTES) + len(message.item_id.encode())

            async def answered() -> tuple[Any, int]:
                found = kind(item_id=message.item_id, response=await work(message.request, trace))
                responses.check_bytes(bytes_found := found.ByteSize(), "item_id")
                return found, bytes_found

            def failed(fault: Fault) -> tuple[Any, int]:
                found = kind(item_id=message.item_id, error=fault.item_error())
                return found, found.ByteSize()

            found, bytes_found = await self.once(rpc, size, answered, failed, kept=kept, most=most)
            kept.answered(bytes_found, most)
            return found, bytes_found

        try:
            with self.room.opened() as kept:
                messages = self._messages(requests, kept)
                answers = answered_in_order(messages, answer, window, idle_seconds=IDLE_SECONDS, given_up=kept.dropped)
                async with aclosing(answers):
                    async for found, size in answers:
                        yield found
                        del found  # it counts no more
                        kept.taken(size)
        except Exception as error:  # it was refused, given up or broken, and counts as a call that took no time
            fault = Fault(error)
            fault.set_on(context)
            self._recorder.call(rpc, fault.code.name, 0.0)

    async def _messages(self, requests: AsyncIterator[Any], kept: Kept) -> AsyncGenerator[tuple[Any, int]]:
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
            await self.room.read_on(kept)
        # Serve ends a stream with a message that it cannot read as if the caller had ended it, but for this.
        if getattr(requests, "is_cancelled", bool)():
            raise InvalidInput(
                f"requests[{number}]", "a message of this RPC", "bytes that are none", "send those from it on again"
            )

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
