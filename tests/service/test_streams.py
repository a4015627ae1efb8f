"""Answering a stream of requests: order, the window, and what happens when either side leaves."""

import asyncio
import time

import pytest
from iin_service.errors import Idle
from iin_service.streams import answered_in_order


def in_order(requests, answer, window, *, idle_seconds=60.0, given_up=lambda: None):
    return answered_in_order(requests, answer, window, idle_seconds=idle_seconds, given_up=given_up)


async def numbers(count, read):
    for index in range(count):
        read.append(index)
        yield index


def test_answers_keep_the_order_of_requests_whoever_is_quicker():
    async def answer(index):
        await asyncio.sleep(0.02 if index % 3 == 0 else 0)
        return index

    async def run():
        return [one async for one in in_order(numbers(20, []), answer, 4)]

    assert asyncio.run(run()) == list(range(20))


def test_no_more_is_read_than_the_window_while_nobody_takes_answers():
    async def run():
        read, answered = [], []

        async def answer(index):
            answered.append(index)
            return index

        stream = in_order(numbers(100, read), answer, 5)
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

        stream = in_order(numbers(4, []), answer, 4)
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
        stream = in_order(broken(), answer, 4)
        assert await anext(stream) == 1
        with pytest.raises(ConnectionError, match="gone"):
            await anext(stream)

    asyncio.run(run())


async def echo(index):
    return index


def test_a_caller_who_sends_nothing_is_given_up():
    async def one_and_no_more():
        yield 1
        await asyncio.Event().wait()

    async def run():
        given_up = []
        stream = in_order(one_and_no_more(), echo, 4, idle_seconds=0.05, given_up=lambda: given_up.append(True))
        assert await anext(stream) == 1
        with pytest.raises(Idle, match=r"sent or taken, within 0\.05 s, got none; open another stream"):
            await anext(stream)
        return given_up

    assert asyncio.run(run()) == [True]


def test_a_caller_who_ends_in_the_turn_in_which_he_is_given_up_is_told():
    async def run():
        ended = asyncio.Event()

        async def silent():
            await ended.wait()
            return
            yield

        def both():
            time.sleep(0.1)  # the loop is held: in its next turn the stream ends, and the time is over
            ended.set()

        answers = asyncio.create_task(anext(in_order(silent(), echo, 4, idle_seconds=0.05)))
        for _ in range(5):
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(both)
        with pytest.raises(Idle):
            await asyncio.wait_for(answers, 10)

    asyncio.run(run())


def test_a_caller_who_takes_nothing_is_given_up_and_told_when_it_does():
    async def run():
        gone, cancelled = asyncio.Event(), []

        async def answer(index):
            if index == 3:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    cancelled.append(index)
                    raise
            return index

        stream = in_order(numbers(100, []), answer, 4, idle_seconds=0.05, given_up=gone.set)
        assert await anext(stream) == 0
        await asyncio.wait_for(gone.wait(), 10)
        await asyncio.sleep(0)
        assert cancelled == [3]
        with pytest.raises(Idle):
            await anext(stream)

    asyncio.run(run())


def test_an_answer_that_takes_long_is_not_the_callers_idleness():
    async def slow(index):
        await asyncio.sleep(0.2)
        return index

    async def run():
        return [one async for one in in_order(numbers(2, []), slow, 1, idle_seconds=0.05)]

    assert asyncio.run(run()) == [0, 1]
