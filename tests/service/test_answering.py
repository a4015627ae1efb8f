"""What calls have in common: the bytes that are held for them together, and how each is counted."""

import asyncio
from functools import partial

import grpc
import pytest
from iin_api.v1 import interpretation_pb2 as pb
from iin_service import room
from iin_service.answering import Answering

from .fakes import Noting


@pytest.fixture
def noted():
    return Noting()


def call(held, size, answer):
    """A task that answers a request of `size` bytes, or gives the fault."""
    return asyncio.create_task(held.once("Interpret", size, answer, lambda fault: fault))


async def nothing():
    return None


def test_a_request_that_does_not_fit_beside_those_under_way_is_refused_and_the_others_are_not(noted, monkeypatch):
    monkeypatch.setattr(room, "MAX_BYTES_HELD", 100)

    async def run():
        held, leave = Answering(noted), asyncio.Event()
        first = call(held, 60, leave.wait)
        await asyncio.sleep(0)
        fits, refused = await call(held, 40, nothing), await call(held, 41, nothing)
        assert fits is None
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.message == "requests of 60 bytes are under way, at most 100; retry later"
        leave.set()
        assert await first is True
        assert await call(held, 41, nothing) is None
        assert await call(held, 101, nothing) is None  # alone

    asyncio.run(run())
    assert [code for _, code in noted.calls] == ["OK", "RESOURCE_EXHAUSTED", "OK", "OK", "OK"]


def test_a_unary_call_whose_caller_leaves_is_counted_as_cancelled(noted):
    async def run():
        held = Answering(noted)
        left = call(held, 60, asyncio.Event().wait)
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.wait([left])
        assert left.cancelled()
        return held.room._bytes

    assert asyncio.run(run()) == 0
    assert noted.calls == [("Interpret", "CANCELLED")]


def test_a_call_for_a_stream_whose_caller_leaves_is_counted_as_cancelled(noted):
    async def begin():
        return (partial(number, index) for index in (7, 8))

    async def number(index):
        return pb.SampleResponse(first_index=index)

    async def run():
        held = Answering(noted)
        answers = held.stream("Sample", pb.SampleRequest(count=3), begin, None)
        assert (await anext(answers)).first_index == 7
        assert held.room._kept > 0
        assert held.room._requests > 0
        await answers.aclose()
        return held.room._bytes, held.room._kept, held.room._requests, held.room._streams

    assert asyncio.run(run()) == (0, 0, 0, 0)
    assert noted.calls == [("Sample", "CANCELLED")]
