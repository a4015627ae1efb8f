"""Answering a stream of requests: order, the window, and what happens when either side leaves."""

import asyncio

import pytest
from iin_service.streams import answered_in_order


async def numbers(count, read):
    for index in range(count):
        read.append(index)
        yield index


def test_answers_keep_the_order_of_requests_whoever_is_quicker():
    async def answer(index):
        await asyncio.sleep(0.02 if index % 3 == 0 else 0)
        return index

    async def run():
        return [one async for one in answered_in_order(numbers(20, []), answer, 4)]

    assert asyncio.run(run()) == list(range(20))


def test_no_more_is_read_than_the_window_while_nobody_takes_answers():
    async def run():
        read, answered = [], []

        async def answer(index):
            answered.append(index)
            return index

        stream = answered_in_order(numbers(100, read), answer, 5)
        assert await anext(stream) == 0
        for _ in range(50):
            await asyncio.sleep(0)
        held = len(read)
        assert held <= 6  # the window, and the one that was taken
        assert [await anext(stream) for _ in range(10)] == list(range(1, 11))
        await stream.aclose()
        return held, len(read)

    held, read = asyncio.run(run())
    assert held < read < 100


def test_what_is_under_way_is_cancelled_when_the_caller_leaves():
    cancelled = []

    async def run():
        async def answer(index):
            try:
                await asyncio.sleep(0 if index == 0 else 60)
            except asyncio.CancelledError:
                cancelled.append(index)
                raise
            return index

        stream = answered_in_order(numbers(4, []), answer, 4)
        assert await anext(stream) == 0
        await asyncio.sleep(0.01)
        await stream.aclose()
        await asyncio.sleep(0.01)

    asyncio.run(run())
    assert cancelled == [1, 2, 3]


def test_a_stream_that_breaks_gives_its_answers_first():
    async def broken():
        yield 1
        raise ConnectionError("gone")

    async def answer(index):
        return index

    async def run():
        stream = answered_in_order(broken(), answer, 4)
        assert await anext(stream) == 1
        with pytest.raises(ConnectionError, match="gone"):
            await anext(stream)

    asyncio.run(run())
