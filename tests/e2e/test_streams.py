"""Streams of requests on a live service: order, faults of single items, flow control."""

import asyncio
import itertools
import time

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from iin_api.v1 import interpretation_pb2 as pb
from iin_client import AsyncClient, Client, Factors, RawImage, Replace, Resample


def test_answers_come_in_order_and_a_bad_item_spoils_no_other(client, pictures):
    items = [(f"item {index}", pictures[index % len(pictures)]) for index in range(150)]
    items[3], items[77] = ("bad", b"no picture"), ("bad too", b"")
    answers = list(client.interpret_stream(items))
    assert [answer.item_id for answer in answers] == [item_id for item_id, _ in items]
    bad = [answer for answer in answers if answer.error is not None]
    assert [answer.item_id for answer in bad] == ["bad", "bad too"]
    assert [answer.error.code for answer in bad] == [StatusCode.INVALID_ARGUMENT] * 2
    assert bad[0].error.violations[0].field == "inputs[0].encoded_image"
    assert bad[0].result is None
    alone = client.interpret(pictures).factors
    for index, answer in enumerate(answers):
        if answer.result is not None:
            np.testing.assert_allclose(answer.result.factors[0], alone[index % len(pictures)], atol=1e-4)


@pytest.mark.parametrize("broken", [b"\x0a\xff", b"\x0a\x02\xff\xfe"], ids=["cut", "no text"])
def test_a_message_that_cannot_be_read_ends_the_stream_with_an_error_after_the_answers_before_it(
    service, pictures, broken
):
    message = pb.InterpretStreamRequest(
        item_id="good", request=pb.InterpretRequest(inputs=[pb.Input(encoded_image=pictures[0].read_bytes())])
    ).SerializeToString()
    with grpc.insecure_channel(service.address) as channel:
        call = channel.stream_stream("/iin_api.v1.InterpretationService/InterpretStream")
        answers = call(iter([message] * 3 + [broken] + [message] * 3), timeout=60)
        assert len(list(itertools.islice(answers, 3))) == 3
        with pytest.raises(grpc.RpcError) as ended:
            next(answers)
    assert ended.value.code() == StatusCode.INVALID_ARGUMENT
    assert "requests[3]: expected a message of this RPC, got bytes that are not one" in ended.value.details()


def test_large_messages_wait_for_room_and_none_is_refused(client):
    """64 of them under way would be 16,384 items where 4,096 may be."""
    factors = Factors(np.zeros((256, 32), np.float32))
    answers = list(client.interpret_stream((str(index), factors) for index in range(100)))
    assert [answer.error for answer in answers] == [None] * 100


def test_edits_stream_too(client, pictures):
    edits = [Replace("digit", pictures[1]), Resample("residual", seed=2)]
    answers = list(client.edit_stream([("one", pictures[0]), ("two", [pictures[2], pictures[3]])], edits, output="raw"))
    one, two = (answer.result for answer in answers)
    np.testing.assert_allclose(one.images.raw, client.edit(pictures[0], edits, output="raw").images.raw, atol=1e-4)
    assert two.images.raw.shape == (2, 3, 32, 32)


def test_an_item_that_cannot_be_sent_ends_the_stream_after_the_answers_before_it(client, pictures, tmp_path):
    items = [("there", pictures[0]), ("absent", tmp_path / "absent.png"), ("later", pictures[1])]
    stream = client.interpret_stream(items)
    assert next(stream).item_id == "there"
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        next(stream)


def test_an_asynchronous_stream_answers_while_it_is_fed(service, pictures):
    async def run():
        answered = []

        async def items():
            for index in range(5):
                while len(answered) < index:  # the next item follows the answer to the one before
                    await asyncio.sleep(0.01)
                yield str(index), pictures[index % len(pictures)]

        async with AsyncClient(service.address, timeout=60) as client:
            async for answer in client.interpret_stream(items()):
                answered.append(answer.item_id)  # noqa: PERF401 the items wait for it
        return answered

    assert asyncio.run(asyncio.wait_for(run(), 60)) == [str(index) for index in range(5)]


def test_a_caller_that_takes_no_answers_is_not_read_without_end(stub, client, pictures):
    """Past the window, and what the transport holds, the service stops reading: it must not gather without end."""
    sent = itertools.count()
    message = pb.InterpretStreamRequest(
        item_id="x" * 200_000, request=pb.InterpretRequest(inputs=[pb.Input(encoded_image=pictures[0].read_bytes())])
    )
    last = 0

    def messages():
        nonlocal last
        for last in sent:
            if last >= 2000:
                return
            yield message

    call = stub.InterpretStream(messages())
    held = -1
    while call.is_active() and (not last or last != held):  # ends with the last message if nothing else does
        held = last
        time.sleep(3)
    assert 0 < held < 1000, "it goes on reading"
    assert client.interpret(pictures[0]).factors.shape == (1, 32)  # others are served meanwhile
    call.cancel()


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_caller_that_reads_late_gets_all_large_answers(service, kind):
    """Behind HAProxy 2.8 it would not, if the client read no answers meanwhile."""
    large = RawImage(np.zeros((64, 3, 32, 32), np.float32))
    items, resample = [(str(index), large) for index in range(100)], Resample("digit", seed=1)

    def late():
        with Client(service.address, timeout=60) as client:
            answers = client.edit_stream(items, resample, output="raw")
            first = next(answers)
            time.sleep(3)
            return [first, *answers]

    async def late_async():
        async def each():
            for item in items:
                yield item

        async with AsyncClient(service.address, timeout=60) as client:
            answers = client.edit_stream(each(), resample, output="raw")
            first = await anext(answers)
            await asyncio.sleep(3)
            return [first, *[answer async for answer in answers]]

    found = late() if kind == "threads" else asyncio.run(asyncio.wait_for(late_async(), 120))
    assert [answer.item_id for answer in found] == [item_id for item_id, _ in items]
    assert found[-1].result.images.raw.shape == (64, 3, 32, 32)


def test_leaving_a_stream_early_leaves_the_service_well(client, pictures):
    endless = ((str(index), pictures[0]) for index in itertools.count())
    for answer in itertools.islice(client.interpret_stream(endless), 100):
        assert answer.error is None
    assert client.interpret(pictures[0]).factors.shape == (1, 32)
