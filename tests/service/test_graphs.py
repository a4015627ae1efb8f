"""Who is let in when the replica is full: patient calls in their order, without waking each other; and who left."""

import asyncio
import gc
import threading

import pytest
from iin_service.errors import InvalidInput
from iin_service.graphs import Codec, Compute
from iin_service.items import Limits


class Counting(asyncio.SelectorEventLoop):
    """An event loop that counts what it runs."""

    steps = 0

    def call_soon(self, *arguments, **options):
        self.steps += 1
        return super().call_soon(*arguments, **options)


@pytest.fixture
def compute():
    return Compute(Limits(max_queued_items=8))


async def turns():
    """Let everything go on that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_patient_call_is_not_overtaken_by_smaller_ones(compute):
    async def run():
        order = []

        async def patient(items):
            async with compute.admitted(items, patient=True):
                order.append(items)

        async with compute.admitted(2, patient=False):
            async with compute.admitted(2, patient=False):
                large = asyncio.create_task(patient(4))
                await turns()
            small = asyncio.create_task(patient(1))  # would fit beside the two that are left
            await turns()
            assert order == []
        await asyncio.gather(large, small)
        return order

    assert asyncio.run(asyncio.wait_for(run(), 10)) == [4, 1]


def test_a_patient_call_that_leaves_while_it_waits_lets_the_next_one_in(compute):
    async def run():
        async def patient():
            async with compute.admitted(4, patient=True):
                pass

        async with compute.admitted(4, patient=False):
            calls = [asyncio.create_task(patient()) for _ in range(3)]
            await turns()
            calls[0].cancel()
        await asyncio.gather(*calls[1:])
        assert calls[0].cancelled()

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_call_that_ends_does_not_wake_all_that_wait(compute):
    async def run():
        async def patient():
            async with compute.admitted(4, patient=True):
                pass

        async with compute.admitted(8, patient=False):
            async with compute.admitted(0, patient=False):
                calls = [asyncio.create_task(patient()) for _ in range(1000)]
                await turns()
                before = loop.steps
            await turns()
            woken = loop.steps - before
        await asyncio.gather(*calls)
        return woken

    loop = Counting()
    try:
        assert loop.run_until_complete(asyncio.wait_for(run(), 20)) < 100
    finally:
        loop.close()


def test_a_picture_of_a_call_waits_for_one_of_the_streams_alone_and_those_go_in_order():
    gate, codec, done = threading.Event(), Codec("alone", 1), []

    def work(name):
        return asyncio.create_task(codec(lambda: done.append(name), patient=name.startswith("stream")))

    async def run():
        first = asyncio.create_task(codec(lambda: gate.wait(10), patient=True))
        await turns()
        left, *streams = [work(f"stream {index}") for index in range(4)]
        await turns()
        left.cancel()
        await turns()
        calls = [work("call 1"), work("call 2")]
        await turns()
        gate.set()
        await asyncio.gather(first, *streams, *calls)

    asyncio.run(asyncio.wait_for(run(), 20))
    assert done == ["stream 1", "call 1", "call 2", "stream 2", "stream 3"]


def test_a_picture_at_fault_of_a_call_that_was_given_up_is_not_logged():
    gate, codec, logged = threading.Event(), Codec("alone", 1), []

    def read():
        gate.wait(10)
        raise InvalidInput("inputs[0].encoded_image", "a picture", "none")

    async def run():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: logged.append(context))
        call = asyncio.create_task(codec(read, patient=False))
        await turns()
        call.cancel()
        await asyncio.wait([call])
        gate.set()
        await codec(lambda: None, patient=False)  # once the thread is free

    asyncio.run(run())
    gc.collect()
    assert logged == []
