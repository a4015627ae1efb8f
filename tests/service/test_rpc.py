"""What callers are told: codes and details for their mistakes, an identifier for ours."""

import asyncio
import base64
import math
import re
import time
from collections import Counter
from contextvars import ContextVar
from urllib.parse import quote

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from iin_api.v1 import interpretation_pb2 as pb
from iin_service import answering, responses, room, rpc
from iin_service.errors import InvalidInput
from iin_service.faults import Fault, logger
from iin_service.sessions import Sessions

from .fakes import Context, Noting, latent_request, quick_graphs, raising, raw_edit, rpcs_of


def test_a_mistake_names_its_field_in_message_and_details(bundle):
    context = Context()
    rpcs = rpcs_of(bundle, Sessions(bundle, threads=1, gpu=False).run)
    asyncio.run(rpcs.interpret(pb.InterpretRequest(), context))
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert context.details == "inputs: expected at least one item, got none"
    status = status_pb2.Status.FromString(dict(context.metadata)["grpc-status-details-bin"])
    detail = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(detail)
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert [(one.field, one.description) for one in detail.field_violations] == [
        ("inputs", "expected at least one item, got none")
    ]


def test_an_internal_error_tells_an_identifier_that_the_log_has(bundle, caplog, monkeypatch):
    monkeypatch.setattr(logger, "handlers", [caplog.handler])  # Serve, whose logger is above it, passes nothing on
    monkeypatch.setattr(logger, "propagate", False)
    context = Context()
    rpcs = rpcs_of(bundle, raising(ZeroDivisionError("secret")))
    asyncio.run(rpcs.interpret(latent_request(bundle), context))
    assert context.code is grpc.StatusCode.INTERNAL
    assert "secret" not in context.details
    identifier = context.details.split()[2].rstrip(";")
    (record,) = [record for record in caplog.records if identifier in record.getMessage()]
    assert "Traceback" in record.getMessage()
    assert "ZeroDivisionError: secret" in record.getMessage()


@pytest.mark.parametrize("letter", ["x", "é", "髪", "\U0001f600"])
def test_what_a_mistake_is_told_in_is_what_gRPC_takes_as_metadata(letter):
    """Past 8 kB a client refuses some answers; a message is percent-encoded there, its details are in base64."""
    names, context = ", ".join([15 * letter] * 64), Context()
    Fault(InvalidInput("edits[0].factor", f"one of {names}", 300 * letter, 100 * "r")).set_on(context)
    details = dict(context.metadata)["grpc-status-details-bin"]
    assert len(quote(context.details)) + len(base64.b64encode(details)) < 8000
    assert re.match(r"edits\[0\]\.factor: expected one of .*\.\.\., got .*\.\.\.; r{100}$", context.details)


def test_a_stream_that_fails_ends_with_its_status(bundle):
    async def collect(context):
        request = pb.SampleRequest(count=3, format=pb.IMAGE_FORMAT_PNG)
        return [response async for response in rpcs_of(bundle, raising(ValueError())).sample(request, context)]

    context = Context()
    assert asyncio.run(collect(context)) == []
    assert context.code is grpc.StatusCode.INTERNAL


async def messages(bundle, count, sent):
    for index in range(count):
        sent.append(index)
        yield pb.InterpretStreamRequest(item_id=str(index), request=latent_request(bundle))


async def settled(answers):
    """The first of `answers`, once everything that can go on without its caller has."""
    first = await anext(answers)
    await asyncio.sleep(0.5)
    return first


def test_answers_that_are_not_taken_hold_up_their_own_stream_only(bundle, monkeypatch):
    """Above the bound a stream goes on by one message at a time, however many answers of others wait."""

    async def run():
        rpcs = rpcs_of(bundle, Sessions(bundle, threads=1, gpu=False).run)
        slow, quick = rpcs.interpret_stream(messages(bundle, 200, []), Context()), []
        size = (await settled(slow)).ByteSize()
        kept = rpcs._answering.room._kept
        assert 60 * size < kept < 66 * size
        monkeypatch.setattr(room, "MAX_BYTES_HELD", kept)
        async for one in rpcs.interpret_stream(messages(bundle, 200, []), Context()):
            quick.append(one)
            assert rpcs._answering.room._kept <= kept + 2 * size
        assert [one.item_id for one in quick] == [str(index) for index in range(200)]
        assert not any(one.HasField("error") for one in quick)
        await slow.aclose()
        assert rpcs._answering.room._kept == rpcs._answering.room._bytes == 0

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_small_message_does_not_overtake_a_large_one_that_waits_for_room(bundle, monkeypatch):
    """Answers of later messages would keep the bytes that it waits for, and could not be taken before its own."""
    monkeypatch.setattr(room, "MAX_BYTES_HELD", 4000)

    async def run():
        rpcs = rpcs_of(bundle, Sessions(bundle, threads=1, gpu=False).run)
        held, leave = rpcs._answering, asyncio.Event()
        other = asyncio.create_task(
            held.once("Other", pb.InterpretRequest(resize=True).ByteSize(), leave.wait, lambda fault: fault)
        )
        await asyncio.sleep(0)
        held.room._bytes += 1400  # as if that were large
        small = latent_request(bundle)
        large = pb.InterpretRequest(inputs=[*small.inputs] * (1000 // small.ByteSize()))

        async def requests():
            yield pb.InterpretStreamRequest(item_id="large", request=large)
            for index in range(60):
                yield pb.InterpretStreamRequest(item_id=str(index), request=small)

        async def taken():
            return [one.item_id async for one in rpcs.interpret_stream(requests(), Context())]

        answers = asyncio.create_task(taken())
        await asyncio.sleep(0.3)
        held.room._bytes -= 1400
        leave.set()
        await other
        return await asyncio.wait_for(answers, 20)

    assert asyncio.run(run()) == ["large", *map(str, range(60))]


def large_request(bundle, size):
    small = latent_request(bundle)
    return pb.InterpretRequest(inputs=[*small.inputs] * (size // small.ByteSize()))


def test_messages_that_wait_are_read_up_to_a_bound_and_one_of_each_stream(bundle, monkeypatch):
    monkeypatch.setattr(room, "MAX_BYTES_HELD", 20_000)
    request = large_request(bundle, 3000)

    async def run():
        rpcs = rpcs_of(bundle, Sessions(bundle, threads=1, gpu=False).run)
        held, leave, read = rpcs._answering, asyncio.Event(), Counter()
        size = latent_request(bundle).ByteSize()
        other = asyncio.create_task(held.once("Other", size, leave.wait, lambda fault: fault))
        await asyncio.sleep(0)
        held.room._bytes += 10_000  # as if that were large

        async def requests(name):
            for index in range(20):
                read[name] += 1
                yield pb.InterpretStreamRequest(item_id=str(index), request=request)

        async def taken(name):
            return [one.item_id async for one in rpcs.interpret_stream(requests(name), Context())]

        answers = [asyncio.create_task(taken(name)) for name in "ab"]
        await asyncio.sleep(0.3)
        waiting = dict(read), held.room._waiting
        held.room._bytes -= 10_000
        leave.set()
        await other
        return waiting, await asyncio.wait_for(asyncio.gather(*answers), 20), (held.room._waiting, held.room._bytes)

    (read, waiting), answers, left = asyncio.run(run())
    assert read == {"a": 1, "b": 1}
    assert 2 * request.ByteSize() <= waiting < 2.1 * request.ByteSize()
    assert answers == [[str(index) for index in range(20)]] * 2
    assert left == (0, 0)


def test_a_stream_that_ends_while_its_messages_wait_leaves_nothing_behind(bundle, monkeypatch):
    monkeypatch.setattr(room, "MAX_BYTES_HELD", 4000)

    async def run():
        rpcs = rpcs_of(bundle, Sessions(bundle, threads=1, gpu=False).run)
        held = rpcs._answering
        held.room._bytes += 3000

        async def requests():
            yield pb.InterpretStreamRequest(request=latent_request(bundle))
            await asyncio.sleep(60)

        answers = asyncio.create_task(anext(rpcs.interpret_stream(requests(), Context())))
        await asyncio.sleep(0.1)
        assert held.room._waiting > 0
        answers.cancel()
        await asyncio.wait([answers])
        return held.room._waiting, held.room._bytes

    assert asyncio.run(run()) == (0, 3000)


def test_the_time_of_a_message_counts_from_its_arrival_and_not_from_when_there_is_room(bundle, monkeypatch):
    monkeypatch.setattr(room, "MAX_BYTES_HELD", 4000)

    async def run():
        rpcs = rpcs_of(bundle, quick_graphs(bundle))
        held = rpcs._answering.room
        held._bytes += 3000
        answer = asyncio.create_task(anext(rpcs.interpret_stream(messages(bundle, 1, []), Context())))
        while not held._waiting:
            await asyncio.sleep(0)
        since = time.perf_counter()
        await asyncio.sleep(0.05)
        waited = time.perf_counter() - since
        held._bytes -= 3000
        held._left.set()
        return (await answer).response.timing.total_ms, 1e3 * waited

    total, waited = asyncio.run(run())
    assert total >= waited


def test_samples_that_nobody_takes_leave_room_for_the_others(bundle, monkeypatch):
    """Their requests stay in memory: in a quarter of the room, past which only their own kind is refused."""
    request = pb.SampleRequest(count=64, format=pb.IMAGE_FORMAT_NONE)
    shape = bundle.manifest.image.shape
    request.fixed.add(factor="digit").source.image.CopyFrom(pb.Tensor(shape=shape, data=bytes(4 * math.prod(shape))))
    monkeypatch.setattr(room, "MAX_BYTES_HELD", 10 * request.ByteSize())

    async def run():
        rpcs = rpcs_of(bundle, Sessions(bundle, threads=1, gpu=False).run)
        contexts = [Context() for _ in range(3)]
        streams = [rpcs.sample(request, context) for context in contexts]
        for stream in streams[:2]:
            assert (await anext(stream)).first_index == 0
        assert [one async for one in streams[2]] == []
        assert contexts[2].code is grpc.StatusCode.RESOURCE_EXHAUSTED
        small = pb.SampleRequest(count=64, format=pb.IMAGE_FORMAT_NONE)
        monkeypatch.setattr(room, "MAX_STREAMS", room.MAX_BYTES_HELD // 4 // small.ByteSize())
        assert len([one async for one in rpcs.sample(small, Context())]) == 2
        context = Context()
        assert (await rpcs.interpret(latent_request(bundle), context)).factors.shape == [1, bundle.manifest.size]
        many = [one async for one in rpcs.interpret_stream(messages(bundle, 5, []), Context())]
        assert not any(one.HasField("error") for one in many)
        for stream in streams:
            await stream.aclose()
        return len(many), rpcs._answering.room._bytes, rpcs._answering.room._kept, rpcs._answering.room._requests

    assert asyncio.run(asyncio.wait_for(run(), 60)) == (5, 0, 0, 0)


def test_a_stream_whose_answers_are_not_taken_gives_its_answers_back_and_its_place_when_it_ends(bundle, monkeypatch):
    monkeypatch.setattr(answering, "IDLE_SECONDS", 0.1)

    async def run():
        rpcs = rpcs_of(bundle, Sessions(bundle, threads=1, gpu=False).run)
        context = Context()
        answers = rpcs.interpret_stream(messages(bundle, 200, []), context)
        await settled(answers)
        held = rpcs._answering
        assert (held.room._streams, held.room._kept, held.room._bytes) == (1, 0, 0)
        assert [one async for one in answers] == []
        assert (held.room._streams, held.room._kept) == (0, 0)
        return context

    context = asyncio.run(asyncio.wait_for(run(), 60))
    assert context.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "within 0.1 s, got none; open another stream" in context.details


def test_a_stream_past_the_bound_is_refused_until_another_ends(bundle, monkeypatch):
    monkeypatch.setattr(room, "MAX_STREAMS", 2)

    async def silent():
        await asyncio.Event().wait()
        yield

    async def run():
        rpcs = rpcs_of(bundle, raising(AssertionError()))
        streams = [rpcs.interpret_stream(silent(), Context()) for _ in range(2)]
        opened = [asyncio.create_task(anext(stream)) for stream in streams]
        await asyncio.sleep(0)
        contexts = [Context(), Context()]
        assert [one async for one in rpcs.interpret_stream(messages(bundle, 0, []), contexts[0])] == []
        opened[0].cancel()
        await asyncio.wait(opened[:1])
        assert [one async for one in rpcs.interpret_stream(messages(bundle, 0, []), contexts[1])] == []
        opened[1].cancel()
        await asyncio.wait(opened)
        return contexts, rpcs._answering.room._streams

    (refused, let_in), left = asyncio.run(run())
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.details == "2 streams are open, as many as may be; retry later"
    assert let_in.code is None
    assert left == 0


def test_callers_of_list_models_share_one_question_for_a_while(bundle, monkeypatch):
    monkeypatch.setattr(rpc, "LISTED_SECONDS", 0.05)
    asked, call = [], ContextVar("call", default=None)

    async def one_model():
        asked.append(call.get())
        await asyncio.sleep(0.01)
        return [pb.ServedModel(application="digits")]

    async def run():
        rpcs = rpcs_of(bundle, Sessions(bundle, threads=1, gpu=False).run, one_model)
        request = pb.ListModelsRequest()
        call.set("first")
        first = asyncio.create_task(rpcs.list_models(request, Context()))
        await asyncio.sleep(0)
        first.cancel()  # the others get their answer all the same
        found = await asyncio.gather(*(rpcs.list_models(request, Context()) for _ in range(20)))
        found.append(await rpcs.list_models(request, Context()))
        assert [[one.application for one in answer.models] for answer in found] == [["digits"]] * 21
        assert asked == [None], "of nobody's call: Serve cancels what is asked in one that is cancelled"
        await asyncio.sleep(0.1)
        await rpcs.list_models(request, Context())
        assert len(asked) == 2

    asyncio.run(run())


def test_answers_that_callers_do_not_take_are_bounded_and_who_takes_his_own_goes_on(bundle, monkeypatch):
    """However many streams there are, and although all their messages could begin before the first answer."""
    rpcs, made = rpcs_of(bundle, quick_graphs(bundle)), []
    request, work, held = raw_edit(bundle, 16), rpcs._edited, rpcs._answering
    most = responses.Sizes(bundle.manifest).most(16)
    monkeypatch.setattr(room, "MAX_BYTES_HELD", 2 * 20 * most)

    async def edited(*arguments):
        made.append(await work(*arguments))
        return made[-1]

    async def requests(count):
        for _ in range(count):
            yield pb.EditStreamRequest(request=request)

    async def run():
        monkeypatch.setattr(rpcs, "_edited", edited)
        streams = [rpcs.edit_stream(requests(64), Context()) for _ in range(6)]
        for stream in streams:
            await settled(stream)
        assert sum(one.ByteSize() for one in made) <= held.room._kept <= 20 * most + 6 * most
        assert len([one async for one in rpcs.edit_stream(requests(100), Context())]) == 100
        rest = [one for stream in streams async for one in stream]
        assert len(rest) == 6 * 63
        assert not any(one.HasField("error") for one in rest)
        return held.room._kept, held.room._bytes, held.room._waiting

    assert asyncio.run(asyncio.wait_for(run(), 60)) == (0, 0, 0)


@pytest.mark.parametrize("image_format", [pb.IMAGE_FORMAT_RAW, pb.IMAGE_FORMAT_PNG, pb.IMAGE_FORMAT_JPEG])
def test_no_answer_has_more_bytes_than_are_kept_for_it(bundle, image_format):
    """Of noise, which no file format makes smaller, with all that can be asked for, and of mistakes."""

    def noise(role, items):
        found = quick_graphs(bundle)(role, items)
        return tuple(np.random.default_rng(0).uniform(0, 1, one.shape).astype(np.float32) for one in found)

    rpcs, manifest = rpcs_of(bundle, noise), bundle.manifest
    latent, factors = pb.Input(latent=latent_request(bundle).inputs[0].latent), raw_edit(bundle, 200).targets[0]
    edit = raw_edit(bundle, 256)
    edit.format = image_format
    edit.edits.add(factor="residual").replace.source.CopyFrom(edit.targets[0])
    one = raw_edit(bundle, 1)
    one.format = image_format
    wrong = pb.EditRequest(targets=one.targets)
    wrong.edits.add(factor="\U0001f600" * 100_000).resample.seed = 1
    mixed = pb.InterpretRequest(inputs=[*([latent, raw_edit(bundle, 1).targets[0]] * 28), factors])
    item_id = "\u00e9" * 100_000

    async def run():
        for stream, kind, request, items in [
            (rpcs.edit_stream, pb.EditStreamRequest, edit, 256),
            (rpcs.edit_stream, pb.EditStreamRequest, one, 1),
            (rpcs.edit_stream, pb.EditStreamRequest, wrong, 1),
            (rpcs.interpret_stream, pb.InterpretStreamRequest, mixed, 256),
            (rpcs.interpret_stream, pb.InterpretStreamRequest, pb.InterpretRequest(), 0),
        ]:

            async def requests(message):
                yield message

            (answer,) = [one async for one in stream(requests(kind(item_id=item_id, request=request)), Context())]
            assert answer.HasField("error") == (request is wrong or not items)
            edits = kind is pb.EditStreamRequest
            given = request.targets if edits else request.inputs
            assert rpcs._read.items.most_items(given) == items
            most = (rpcs._most_edited if edits else rpcs._most_interpreted)(request)
            assert most == responses.Sizes(manifest).most(items, images=edits, latents=request is not wrong)
            assert answer.ByteSize() <= most + len(item_id.encode())

    asyncio.run(run())


def test_what_inputs_say_of_themselves_bounds_their_items(bundle):
    most_items = rpcs_of(bundle, quick_graphs(bundle))._read.items.most_items
    many = pb.Input(factors=pb.Tensor(shape=[2**62, bundle.manifest.size]))
    assert most_items([many, many]) == 256
    assert most_items([pb.Input(latent=pb.Tensor(shape=[-5, 3, 2, 1, 1, 1]))]) == 1
    assert most_items([pb.Input(image=pb.Tensor(shape=bundle.manifest.image.shape)), pb.Input()]) == 2
    assert most_items([pb.Input(encoded_image=b"")] * 1000) == 256


class Sized:
    """A message of 7 bytes that counts how often it is asked for them."""

    def __init__(self, item_id, **what):
        self.item_id, self.what, self.asked = item_id, what, 0
        self.request = pb.InterpretRequest()

    def ByteSize(self):
        self.asked += 1
        return 7


def test_the_bytes_of_a_message_and_its_answer_are_counted_once(bundle):
    """For that they are serialised as a whole."""
    rpcs = rpcs_of(bundle, quick_graphs(bundle))
    sent = [Sized(str(index)) for index in range(100)]

    async def requests():
        for one in sent:
            yield one

    async def work(request, trace):
        return request

    async def run():
        stream = rpcs._answering.each("Any", requests(), work, lambda request: 0, Sized, 64, Context())
        return [one async for one in stream]

    answers = asyncio.run(run())
    assert [one.item_id for one in answers] == [one.item_id for one in sent]
    assert {one.asked for one in sent + answers} == {1}


def test_a_stream_that_is_refused_or_given_up_is_counted(bundle, monkeypatch):
    monkeypatch.setattr(room, "MAX_STREAMS", 1)
    monkeypatch.setattr(answering, "IDLE_SECONDS", 0.05)
    noting = Noting()
    rpcs = rpcs_of(bundle, quick_graphs(bundle), recorder=noting)

    async def silent():
        await asyncio.Event().wait()
        yield

    async def run():
        idle = asyncio.create_task(anext(rpcs.interpret_stream(silent(), Context()), None))
        await asyncio.sleep(0)
        assert [one async for one in rpcs.edit_stream(silent(), Context())] == []
        assert await idle is None

    asyncio.run(run())
    assert noting.calls == [("EditStream", "RESOURCE_EXHAUSTED"), ("InterpretStream", "DEADLINE_EXCEEDED")]
