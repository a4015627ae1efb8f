"""Streams of requests: how (id, inputs) pairs are sent, and how the answers are read."""

import asyncio
import reprlib
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import grpc
from google.protobuf import message as protobuf
from iin_api.v1 import interpretation_pb2 as pb

from iin_client.channel import MAX_MESSAGE_BYTES
from iin_client.errors import CallError, Violation
from iin_client.inputs import Inputs
from iin_client.results import Answer

__all__ = ["AHEAD", "Sending", "answer", "as_they_come", "as_they_come_async", "messages", "messages_async"]

# Messages that may be sent before the caller takes the answer to the first of them: as many as the service works on
# at once. It also bounds the answers that wait for the caller.
AHEAD = 64
_TURN_S = 0.2
Message = TypeVar("Message", bound=protobuf.Message)
Result = TypeVar("Result")

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Sending:
    """The caller's side of a stream of requests: how far it is ahead, and what went wrong in its own items."""

    def __init__(self, room: threading.Semaphore | asyncio.Semaphore) -> None:
        """`room`, for threads or for asyncio, has `AHEAD` places; each answer that is taken releases one."""
        self.room, self.ended = room, False
        self.error: BaseException | None = None
        self.task: asyncio.Task[Any] | None = None
        """That reads the items, for asyncio."""

    def end(self) -> None:
        """Ends the sending, also where it waits for room, or with asyncio for an item."""
        self.ended = True
        self.room.release()
        if self.task is not None:  # gRPC leaves it when the service ends the call: it would take one item more
            self.task.cancel()

    def check(self) -> None:
        """Raises the error of the caller's items, if there was one; gRPC would hide it behind a status."""
        if self.error is not None:
            raise self.error


def messages(
    items: Iterable[tuple[str, Inputs]], message: Callable[[str, Inputs], Message], sending: Sending
) -> Iterator[Message]:
    """A message for each item; ends early, with an error in `sending`, at one that cannot be sent."""
    try:
        for item in items:
            sending.room.acquire()
            if sending.ended:
                return
            yield _message(item, message)
    except GeneratorExit:
        raise
    except BaseException as error:  # gRPC passes on an Exception only; after another the call would never end
        sending.error = error


async def messages_async(
    items: AsyncIterable[tuple[str, Inputs]], message: Callable[[str, Inputs], Message], sending: Sending
) -> AsyncIterator[Message]:
    """The same for asyncio."""
    assert isinstance(sending.room, asyncio.Semaphore)
    sending.task = asyncio.current_task()
    try:
        async for item in items:
            await sending.room.acquire()
            if sending.ended:
                return
            yield _message(item, message)
    except GeneratorExit:
        raise
    except BaseException as error:  # gRPC would report it as if the client were closed
        sending.error = error


# Any: a caller without a type checker may send anything.
def _message(item: Any, message: Callable[[str, Inputs], Message]) -> Message:
    match item:
        case (str(item_id), inputs):
            made = message(item_id, inputs)
        case _:
            raise ValueError(
                f"items: expected pairs of an id, which is text, and inputs, got {reprlib.repr(item)}; "
                "write (str(number), path)"
            )
    if (size := made.ByteSize()) > MAX_MESSAGE_BYTES:  # gRPC would end the call and drop answers under way
        raise ValueError(
            f"items: expected at most {MAX_MESSAGE_BYTES} bytes a message, got {size} for {item_id!r}; send less in one"
        )
    return made


# A sender must read all the time. While it does not, HAProxy 2.8 stops reading the connection to the replica, and with
# it the replica's window updates for more requests. HAProxy then stops reading requests too, and with them the client's
# window updates for more answers: neither side ever goes on.
def as_they_come(call: Iterable[Message]) -> Iterator[Message]:
    """The messages of `call`. A thread reads them as they arrive, however late they are taken, until the call ends."""
    arrived: SimpleQueue[Any] = SimpleQueue()  # Any: messages, the error that ends them, or None where they just end

    def read() -> None:
        try:
            for message in call:
                arrived.put(message)
        except Exception as error:
            arrived.put(error)
        else:
            arrived.put(None)

    def take() -> Any:
        while True:  # waits in turns, as gRPC does: a signal that comes just before an endless wait would not end it
            with suppress(Empty):
                return arrived.get(timeout=_TURN_S)

    # A daemon, like gRPC's own threads: a stream left open does not keep the process from ending.
    threading.Thread(target=read, name="iin stream reader", daemon=True).start()
    for message in iter(take, None):
        if isinstance(message, Exception):
            raise message
        yield message


async def as_they_come_async(call: AsyncIterable[Message]) -> AsyncIterator[Message]:
    """The same for asyncio, with a task."""
    arrived: asyncio.Queue[Message | BaseException | None] = asyncio.Queue()

    async def read() -> None:
        try:
            async for message in call:
                arrived.put_nowait(message)
        except (Exception, asyncio.CancelledError) as error:  # gRPC raises the latter where the channel was closed
            arrived.put_nowait(error)
        else:
            arrived.put_nowait(None)

    reader = asyncio.create_task(read(), name="iin stream reader")
    try:
        while (message := await arrived.get()) is not None:
            if isinstance(message, BaseException):
                raise message
            yield message
    finally:
        reader.cancel()


# Any: the responses of the two streams have the same fields and no common type.
def answer(response: Any, read: Callable[[Any], Result]) -> Answer[Result]:
    """The answer to one item; `read` makes the result of its message."""
    if response.HasField("error"):
        return Answer(item_id=response.item_id, result=None, error=_error(response.error))
    return Answer(item_id=response.item_id, result=read(response.response), error=None)


def _error(error: pb.ItemError) -> CallError:
    code = _CODES.get(error.code, grpc.StatusCode.UNKNOWN)
    violations = tuple(Violation(one.field, one.description) for one in error.violations)
    return CallError(code, f"{error.message} ({code.name})", violations)
