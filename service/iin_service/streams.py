"""Answers a stream of requests: several at a time, in order, reading no more requests than it works on."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from iin_service.errors import Idle

__all__ = ["answered_in_order", "callers_turn"]

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@contextmanager
def callers_turn(idle_seconds: float, give_up: Callable[[], None]) -> Iterator[None]:
    """A block that waits for the caller. After `idle_seconds` in it `give_up` is called.

    Raises:
        Idle: at the end of the block, if `give_up` was called.

    """
    idle = False

    def late() -> None:
        nonlocal idle
        idle = True
        give_up()

    timer = asyncio.get_running_loop().call_later(idle_seconds, late)
    try:
        yield
    finally:
        timer.cancel()
    if idle:
        raise Idle(f"expected a message, sent or taken, within {idle_seconds:g} s, got none; open another stream")


async def answered_in_order(
    requests: AsyncIterator[Request],
    answer: Callable[[Request], Coroutine[Any, Any, Answer]],
    window: int,
    *,
    idle_seconds: float,
    given_up: Callable[[], None],
) -> AsyncGenerator[Answer]:
    """The answer to each request, in order.

    At most `window` requests are read whose answers are not taken yet; further ones stay in the transport, which slows
    the caller down. When the caller leaves, what is under way is cancelled.

    A caller is given up that for `idle_seconds` sends nothing while it has no answer to wait for, or does not take an
    answer: what is under way is cancelled and `given_up` is called at once. The caller learns of it when it takes the
    answer.

    Raises:
        Idle: if the caller was given up.

    """
    room = asyncio.Semaphore(window)
    pending: asyncio.Queue[asyncio.Task[Answer] | None] = asyncio.Queue()

    async def read() -> None:
        try:
            while True:
                await room.acquire()
                try:
                    request = await anext(requests)
                except StopAsyncIteration:
                    return
                pending.put_nowait(asyncio.create_task(answer(request)))
                del request  # an idle stream holds nothing
        finally:
            pending.put_nowait(None)

    def leave() -> None:
        for task in (reader, under_way, *(pending.get_nowait() for _ in range(pending.qsize()))):
            if task is not None:
                task.cancel()

    def give_up() -> None:
        leave()
        pending.put_nowait(None)  # wakes the loop below: `leave` may have taken the reader's own None
        given_up()

    reader = asyncio.create_task(read())
    under_way: asyncio.Task[Answer] | None = None
    try:
        while True:
            with callers_turn(idle_seconds, give_up):
                under_way = await pending.get()
            if under_way is None:
                break
            found = await under_way
            under_way = None
            with callers_turn(idle_seconds, give_up):
                yield found
            del found
            room.release()
        await reader  # raises what broke the stream
    finally:
        leave()
