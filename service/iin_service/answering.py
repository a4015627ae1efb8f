"""What every RPC has in common: memory is bounded, exceptions become statuses, calls are counted."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from types import SimpleNamespace
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

IDLE_SECONDS = 300.0  # for which a stream stays open without a message sent or taken


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
        """The answer to one request of `size` bytes, or, where that raises, what `failed` makes of the fault.

        A message of a stream comes with what the stream has `kept` and with `most`, the bytes of its largest answer: it
        waits for room in a full replica, and leaves half of the room to unary calls.
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
        """The answer, or `nothing` and a status on `context`: if this raised, Ray would drop the status's details."""

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
        """The answers of the functions that `begin` returns; a status ends them if one fails.

        Each function is called when the answer before it is taken, so a stream keeps one answer at a time, and its
        request to the end.
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
                        del found  # frees what is no longer counted
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
        """An answer of type `kind`, made by `work`, to each message of a stream; see `answered_in_order`.

        Messages wait for room in a full replica. `most_of(request)` bounds the bytes of its answer. A caller that is
        given up keeps its place among the streams until the call ends, and no answers.
        """
        turn = asyncio.Lock()

        async def answer(read: tuple[Any, int]) -> tuple[Any, int]:
            """From a message and its bytes to the answer and its bytes. Counting these takes as long as sending."""
            message, size = read
            trace = Trace(patient=True, turn=turn)  # starts now, before it waits for room
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
                        del found  # frees what is no longer counted
                        kept.taken(size)
        except Exception as error:  # the stream was refused, given up or broken: counted as a call that took no time
            fault = Fault(error)
            fault.set_on(context)
            self._recorder.call(rpc, fault.code.name, 0.0)

    async def _messages(self, requests: AsyncIterator[Any], kept: Kept) -> AsyncGenerator[tuple[Any, int]]:
        """The messages of a stream and their bytes, each read when there is room or all before it have begun.

        Raises:
            InvalidInput: after the last message that can be read, where another cannot.

        """
        number = 0
        async for message in requests:
            number += 1
            size = message.ByteSize()
            kept.read(size)
            yield message, size
            del message  # else it would stay until the next one arrives
            await self.room.read_on(kept)
        # Where Serve cannot read a message it ends the stream as if the caller had; this tells the two apart.
        if getattr(requests, "is_cancelled", bool)():
            remedy = "send the messages from this one on again"
            raise InvalidInput(f"requests[{number}]", "a message of this RPC", "bytes that are not one", remedy)

    @contextmanager
    def _counted(self, rpc: str) -> Iterator[SimpleNamespace]:
        """Record a call with its time and the status whose name the block writes to `code`."""
        outcome, started = SimpleNamespace(code=StatusCode.OK.name), time.perf_counter()
        try:
            yield outcome
        except (asyncio.CancelledError, GeneratorExit):
            outcome.code = StatusCode.CANCELLED.name
            raise
        finally:
            self._recorder.call(rpc, outcome.code, time.perf_counter() - started)
