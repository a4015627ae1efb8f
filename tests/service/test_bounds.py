"""What is bounded while a call is read, worked on, written and taken: items, bytes, places."""

import asyncio
import io
import math
import threading

import grpc
import numpy as np
import pytest
from iin_api.inference import grpc_service_pb2 as inference_pb
from iin_api.v1 import interpretation_pb2 as pb
from iin_bundle import read_bundle
from iin_service import answering, inputs, responses
from iin_service.inference import InferenceRpcs
from iin_service.items import Limits
from PIL import Image

from .test_rpc import Context, Noting, latent_request, quick_graphs, raw_edit, rpcs_of


@pytest.fixture(scope="module")
def bundle(digits_bundle):
    return read_bundle(digits_bundle)


@pytest.fixture
def rpcs(bundle):
    return rpcs_of(bundle, quick_graphs(bundle), limits=Limits(max_queued_items=8))


def picture(side=32):
    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return pb.Input(encoded_image=file.getvalue())


async def interpret(rpcs, given, context):
    await rpcs.interpret(pb.InterpretRequest(inputs=given), context)


async def edit(rpcs, given, context):
    """The pictures are sources."""
    request = raw_edit_of(rpcs, 1)
    for one in given:
        request.edits.add(factor="digit").replace.source.CopyFrom(one)
    await rpcs.edit(request, context)


def raw_edit_of(rpcs, count):
    factors = pb.Tensor(shape=[count, rpcs._engine.layout.size], data=bytes(4 * count * rpcs._engine.layout.size))
    request = pb.EditRequest(targets=[pb.Input(factors=factors)], format=pb.IMAGE_FORMAT_RAW)
    request.edits.add(factor="digit").resample.seed = 1
    return request


async def sample(rpcs, given, context):
    request = pb.SampleRequest(count=1, format=pb.IMAGE_FORMAT_NONE)
    for name, one in zip(rpcs._engine.layout.names, given, strict=False):
        request.fixed.add(factor=name).source.CopyFrom(one)
    assert [one async for one in rpcs.sample(request, context)] == []


async def traverse(rpcs, given, context):
    request = pb.TraverseRequest(start=given[0], frames=2, format=pb.IMAGE_FORMAT_NONE)
    request.interpolation.destination.CopyFrom(given[1])
    assert [one async for one in rpcs.traverse(request, context)] == []


async def respond(rpcs, given, context):
    await rpcs.respond(pb.RespondRequest(inputs=given), context)


async def infer(rpcs, given, context):
    files = inference_pb.InferTensorContents(bytes_contents=[one.encoded_image for one in given])
    tensor = inference_pb.ModelInferRequest.InferInputTensor(
        name="encoded_image", datatype="BYTES", shape=[len(given)], contents=files
    )
    request = inference_pb.ModelInferRequest(model_name="interpret", inputs=[tensor])
    await InferenceRpcs(rpcs._engine, rpcs._read.items, rpcs._answering).model_infer(request, context)


@pytest.mark.parametrize("call", [interpret, edit, sample, traverse, respond, infer])
def test_a_call_that_has_no_room_is_refused_before_a_picture_of_it_is_decoded(call, rpcs, monkeypatch):
    monkeypatch.setattr(inputs, "decode_picture", None)
    monkeypatch.setattr(inputs, "open_picture", None)

    async def run():
        async with rpcs._engine.compute.admitted(7, patient=False):
            context = Context()
            await call(rpcs, [picture(), picture()], context)
            return context.code

    assert asyncio.run(run()) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_pictures_of_a_crowd_are_decoded_up_to_the_bound(rpcs, monkeypatch):
    """Although each of them waits for a decoder, and could be read before the first is admitted."""
    decoded, decode_picture = [], inputs.decode_picture

    def decoding(*arguments, **options):
        decoded.append(None)
        return decode_picture(*arguments, **options)

    monkeypatch.setattr(inputs, "decode_picture", decoding)
    request = pb.InterpretRequest(inputs=[picture(200)] * 4, resize=True)

    async def run():
        contexts = [Context() for _ in range(10)]
        await asyncio.gather(*(rpcs.interpret(request, context) for context in contexts))
        return [context.code for context in contexts]

    assert asyncio.run(run()) == [None] * 2 + [grpc.StatusCode.RESOURCE_EXHAUSTED] * 8
    assert len(decoded) == 8


def test_a_call_past_the_bound_is_refused_at_once_and_the_others_end(bundle, rpcs):
    request = pb.InterpretRequest(inputs=[*latent_request(bundle).inputs] * 6)

    async def crowd():
        contexts = [Context() for _ in range(3)]
        found = await asyncio.gather(*(rpcs.interpret(request, context) for context in contexts))
        found.append(await rpcs.interpret(request, Context()))
        return [len(one.log_likelihoods) for one in found], [context.code for context in contexts]

    assert asyncio.run(crowd()) == ([6, 0, 0, 6], [None] + [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2)


async def pictures_edited(rpcs):
    request = raw_edit_of(rpcs, 5)
    request.format = pb.IMAGE_FORMAT_PNG
    return len((await rpcs.edit(request, Context())).images.encoded)


async def pictures_sampled(rpcs):
    request = pb.SampleRequest(count=5, format=pb.IMAGE_FORMAT_PNG)
    return sum([len(one.images.encoded) async for one in rpcs.sample(request, Context())])


@pytest.mark.parametrize("pictures", [pictures_edited, pictures_sampled])
def test_an_item_keeps_its_place_until_its_picture_is_encoded_in_a_thread_for_that(pictures, rpcs, monkeypatch):
    gate, seen, encode_picture = threading.Event(), [], responses.encode_picture

    def gated(*arguments):
        seen.append(threading.current_thread().name)
        gate.wait(10)
        return encode_picture(*arguments)

    monkeypatch.setattr(responses, "encode_picture", gated)
    monkeypatch.setattr(responses, "VALUES_ENCODED_AT_ONCE", 0)

    async def run():
        call = asyncio.create_task(pictures(rpcs))
        while not seen:
            await asyncio.sleep(0.001)
        kept = rpcs._engine.compute._items
        gate.set()
        return kept, await call, rpcs._engine.compute._items

    assert asyncio.run(run()) == (5, 5, 0)
    assert all(name.startswith("encode") for name in seen)


def samples(rpcs, context):
    request = pb.SampleRequest(count=100, format=pb.IMAGE_FORMAT_RAW)
    return rpcs.sample(request, context)


def frames(rpcs, context):
    request = pb.TraverseRequest(start=raw_edit_of(rpcs, 1).targets[0], frames=100, format=pb.IMAGE_FORMAT_RAW)
    request.random.seed = 1
    return rpcs.traverse(request, context)


@pytest.fixture(params=[samples, frames])
def streamed(request, bundle):
    rpcs = rpcs_of(bundle, quick_graphs(bundle))
    return rpcs._answering, lambda context: request.param(rpcs, context)


def test_a_stream_of_answers_has_a_place_and_what_is_not_taken_of_it_counts(streamed, monkeypatch):
    monkeypatch.setattr(answering, "MAX_STREAMS", 2)
    held, open_stream = streamed

    async def run():
        streams = [open_stream(Context()) for _ in range(2)]
        first = [await anext(one) for one in streams]
        assert held._streams == 2
        assert sum(one.ByteSize() for one in first) < held._kept < 1.001 * sum(one.ByteSize() for one in first)
        context = Context()
        assert [one async for one in open_stream(context)] == []
        assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert context.details == "2 streams are open, as many as may be; retry later"
        assert sum([len(one.factors.data) async for one in streams[0]]) > 0
        await streams[1].aclose()
        return held._streams, held._kept, held._bytes

    assert asyncio.run(run()) == (0, 0, 0)


def test_a_stream_of_answers_that_nobody_takes_is_given_up(streamed, monkeypatch):
    monkeypatch.setattr(answering, "IDLE_SECONDS", 0.05)
    held, open_stream = streamed

    async def run():
        context = Context()
        answers = open_stream(context)
        size = (await anext(answers)).ByteSize()
        while held._kept >= size:
            await asyncio.sleep(0.01)
        assert held._streams == 1
        assert 0 < held._kept < 1000, "the request, which the call holds until it ends"
        assert [one async for one in answers] == []
        return context.code, held._streams, held._kept

    assert asyncio.run(asyncio.wait_for(run(), 20)) == (grpc.StatusCode.DEADLINE_EXCEEDED, 0, 0)


def test_the_answers_of_a_stream_come_in_order_with_all_of_it(streamed):
    _, open_stream = streamed

    async def run():
        return [(one.first_index, one.factors.shape[0]) async for one in open_stream(Context())]

    assert asyncio.run(run()) == [(0, 32), (32, 32), (64, 32), (96, 4)]


def edited(rpcs, requests):
    async def each():
        for index, request in enumerate(requests):
            yield pb.EditStreamRequest(item_id=str(index), request=request)

    async def run():
        return [one async for one in rpcs.edit_stream(each(), Context())]

    return asyncio.run(run())


def test_what_no_message_has_room_for_is_refused_by_itself_before_it_is_computed(bundle, monkeypatch):
    def never(items):
        raise AssertionError("computed")

    rpcs, large = rpcs_of(bundle, lambda role: never), raw_edit(bundle, 20)
    monkeypatch.setattr(responses, "MAX_MESSAGE_BYTES", responses.Sizes(bundle.manifest).most(20) - 1)
    (answer,) = edited(rpcs, [large])
    assert answer.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert [one.field for one in answer.error.violations] == ["targets"]
    context = Context()
    asyncio.run(rpcs.edit(large, context))
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "split the items over several calls" in context.details
    quick = rpcs_of(bundle, quick_graphs(bundle))
    answers = edited(quick, [large, raw_edit(bundle, 19), large, raw_edit(bundle, 1)])
    assert [one.HasField("error") for one in answers] == [True, False, True, False]


def test_files_that_no_message_has_room_for_are_refused_by_themselves(bundle, monkeypatch):
    noise = np.random.default_rng(0).uniform(-1, 1, (20, *bundle.manifest.image.shape)).astype(np.float32)

    def runner(role):
        return (lambda items: (noise[: len(items)],)) if role == "decoder" else quick_graphs(bundle)(role)

    monkeypatch.setattr(responses, "MAX_MESSAGE_BYTES", 20 * math.prod(bundle.manifest.image.shape))
    requests = [raw_edit(bundle, count) for count in (20, 1, 20)]
    for one in requests:
        one.format = pb.IMAGE_FORMAT_PNG
    answers = edited(rpcs_of(bundle, runner), requests)
    assert [one.HasField("error") for one in answers] == [True, False, True]
    assert answers[0].error.violations[0].field == "format"


def test_tensors_that_no_message_has_room_for_are_refused(rpcs, monkeypatch):
    size = rpcs._engine.layout.size
    monkeypatch.setattr(responses, "MAX_MESSAGE_BYTES", 4 * size)
    contents = inference_pb.InferTensorContents(fp32_contents=[0.0] * 2 * size)
    tensor = inference_pb.ModelInferRequest.InferInputTensor(
        name="factors", datatype="FP32", shape=[2, size], contents=contents
    )
    request, context = inference_pb.ModelInferRequest(model_name="interpret", inputs=[tensor]), Context()
    asyncio.run(InferenceRpcs(rpcs._engine, rpcs._read.items, rpcs._answering).model_infer(request, context))
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert context.details.startswith("outputs: ")


def test_a_message_of_a_stream_has_fewer_samples_where_they_are_large(bundle, monkeypatch):
    rpcs = rpcs_of(bundle, quick_graphs(bundle))
    assert rpcs.description().limits.samples_per_message == 32
    monkeypatch.setattr(responses, "STREAMED_BYTES", responses.Sizes(bundle.manifest).most(7))
    assert rpcs.description().limits.samples_per_message == 7

    async def run():
        return [one.factors.shape[0] async for one in samples(rpcs, Context())]

    assert asyncio.run(run()) == [7] * 14 + [2]


def test_a_sample_that_no_message_has_room_for_is_refused(streamed, bundle, monkeypatch):
    monkeypatch.setattr(responses, "STREAMED_BYTES", 0)  # one a message
    monkeypatch.setattr(responses, "MAX_MESSAGE_BYTES", responses.Sizes(bundle.manifest).most(1) - 1)
    context = Context()

    async def run():
        return [one async for one in streamed[1](context)]

    assert asyncio.run(run()) == []
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert context.details.startswith("format: ")


def test_a_message_that_ends_after_its_stream_changes_no_count(bundle):
    """As one does that fails in the turn in which it is cancelled: its failure takes the cancellation's place."""
    held = answering.Answering(Noting())

    async def run():
        with held.opened() as kept:
            kept.read(10)
            kept.begun(10, 1000)
        kept.answered(100, 1000)
        kept.taken(100)
        kept.read(-10)
        return held._kept, held._waiting

    assert asyncio.run(run()) == (0, 0)


def test_what_nobody_foresaw_ends_a_stream_of_requests_with_its_status(bundle):
    noting, context = Noting(), Context()
    rpcs = rpcs_of(bundle, quick_graphs(bundle), recorder=noting)

    async def broken():
        yield pb.InterpretStreamRequest(request=latent_request(bundle))
        raise ZeroDivisionError("secret")

    async def run():
        return [one async for one in rpcs.interpret_stream(broken(), context)]

    assert len(asyncio.run(run())) == 1
    assert context.code is grpc.StatusCode.INTERNAL
    assert "secret" not in context.details
    assert noting.calls == [("InterpretStream", "OK"), ("InterpretStream", "INTERNAL")]


def test_what_an_analysis_works_with_counts_as_bytes_of_its_request(bundle, monkeypatch):
    rpcs = rpcs_of(bundle, quick_graphs(bundle))
    request = pb.RespondRequest(inputs=[*latent_request(bundle).inputs] * 4)
    size = responses.Sizes(bundle.manifest).analysis(4, len(bundle.manifest.layout.names))
    monkeypatch.setattr(answering, "MAX_BYTES_HELD", 4 * size)

    async def run():
        with rpcs._answering._held(1):
            context = Context()
            await rpcs.respond(request, context)
        alone = Context()
        await rpcs.respond(request, alone)
        return context.code, alone.code

    assert asyncio.run(run()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.FAILED_PRECONDITION)
