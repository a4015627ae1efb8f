"""Answering a stream of requests: several at a time, in their order, and no more read than are worked on."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

__all__ = ["answered_in_order"]

Request = TypeVar("Request")
Answer = TypeVar("Answer")


async def answered_in_order(
    requests: AsyncIterator[Request], answer: Callable[[Request], Awaitable[Answer]], window: int
) -> AsyncGenerator[Answer]:
    """The answer to each request, in order.

    At most `window` requests are read and not taken back as answers: what a caller sends beyond them stays in
    the transport, which slows it down. When the caller leaves, what is under way is cancelled.
    """
    room = asyncio.Semaphore(window)
    pending: asyncio.Queue[asyncio.Task[Answer] | None] = asyncio.Queue()

    async def one(request: Request) -> Answer:
        return await answer(request)

    async def read() -> None:
        try:
            while True:
                await room.acquire()
                try:
                    request = await anext(requests)
                except StopAsyncIteration:
                    return
                pending.put_nowait(asyncio.create_task(one(request)))
        finally:
            pending.put_nowait(None)

    reader = asyncio.create_task(read())
    under_way: asyncio.Task[Answer] | None = None
    try:
        while (under_way := await pending.get()) is not None:
            yield await under_way
            room.release()
        await reader  # raises what broke the stream
    finally:
        left = [reader, under_way, *(pending.get_nowait() for _ in range(pending.qsize()))]
        for task in left:
            if task is not None:
                task.cancel()
