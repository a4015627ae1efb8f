"""What is bounded while a call is read, worked on, written and taken: items, bytes, places."""

import asyncio
import contextlib
import dataclasses
import gc
import io
import re
import threading
import tracemalloc
import weakref

import grpc
import numpy as np
import pytest
from iin_api.inference import grpc_service_pb2 as inference_pb
from iin_api.v1 import interpretation_pb2 as pb
from iin_service import answering, inputs, responses, room
from iin_service.errors import Overloaded
from iin_service.graphs import CODECS, Compute
from iin_service.items import Wanted
from PIL import Image

from .fakes import Context, Noting, inference_of, latent_request, picture, quick_graphs, raising, rpcs_of


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
    await inference_of(rpcs).model_infer(request, context)


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


@pytest.mark.parametrize("call", [interpret, infer])
def test_many_pictures_are_put_together_outside_the_event_loop(call, bundle, monkeypatch):
    in_loop, concatenate, context = [], np.concatenate, Context()

    def watched(arrays, *how):
        if len(arrays) == 100:
            in_loop.append(threading.current_thread() is threading.main_thread())
        return concatenate(arrays, *how)

    monkeypatch.setattr(np, "concatenate", watched)
    asyncio.run(call(rpcs_of(bundle, quick_graphs(bundle)), [picture()] * 100, context))
    assert (context.code, in_loop) == (None, [False])


def test_pictures_of_a_crowd_are_decoded_up_to_the_bound(rpcs, monkeypatch):
    """Although each waits for a decoder, and could be read before the first is admitted; a later call has room."""
    decoded, decode_picture = [], inputs.decode_picture

    def decoding(*arguments, **options):
        decoded.append(None)
        return decode_picture(*arguments, **options)

    monkeypatch.setattr(inputs, "decode_picture", decoding)
    request = pb.InterpretRequest(inputs=[picture(200)] * 4, resize=True)

    async def run():
        contexts = [Context() for _ in range(10)]
        found = await asyncio.gather(*(rpcs.interpret(request, context) for context in contexts))
        found.append(await rpcs.interpret(request, Context()))
        return [len(one.log_likelihoods) for one in found], [context.code for context in contexts]

    counts, codes = asyncio.run(run())
    assert counts == [4] * 2 + [0] * 8 + [4]
    assert codes == [None] * 2 + [grpc.StatusCode.RESOURCE_EXHAUSTED] * 8
    assert len(decoded) == 12


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
    monkeypatch.setattr(room, "MAX_STREAMS", 2)
    held, open_stream = streamed

    async def run():
        streams = [open_stream(Context()) for _ in range(2)]
        first = [await anext(one) for one in streams]
        assert held.room._streams == 2
        assert held.room._kept == sum(one.ByteSize() for one in first)
        assert 0 < held.room._requests < 1000
        context = Context()
        assert [one async for one in open_stream(context)] == []
        assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert context.details == "2 streams are open, as many as may be; retry later"
        assert sum([len(one.factors.data) async for one in streams[0]]) > 0
        await streams[1].aclose()
        return held.room._streams, held.room._kept, held.room._requests, held.room._bytes

    assert asyncio.run(run()) == (0, 0, 0, 0)


def test_a_stream_of_answers_that_nobody_takes_is_given_up(streamed, monkeypatch):
    monkeypatch.setattr(answering, "IDLE_SECONDS", 0.05)
    held, open_stream = streamed

    async def run():
        context = Context()
        answers = open_stream(context)
        size = (await anext(answers)).ByteSize()
        assert held.room._kept == size
        while held.room._kept:
            await asyncio.sleep(0.01)
        assert held.room._streams == 1
        assert 0 < held.room._requests < 1000, "which the call holds until it ends"
        assert [one async for one in answers] == []
        return context.code, held.room._streams, held.room._kept, held.room._requests

    assert asyncio.run(asyncio.wait_for(run(), 20)) == (grpc.StatusCode.DEADLINE_EXCEEDED, 0, 0, 0)


def test_requests_of_samples_large_ones_first_have_half_of_the_room():
    held, share = room.Room(), room.MAX_BYTES_HELD // 4 // room.MAX_STREAMS
    with contextlib.ExitStack() as streams:
        for size in (64 * share, share):
            with contextlib.suppress(Overloaded):
                while True:
                    streams.enter_context(held.opened(size))
        assert held._streams == room.MAX_STREAMS
        assert held._requests <= room.MAX_BYTES_HELD // 2
    assert held._requests == held._streams == 0


def test_the_answers_of_a_stream_come_in_order_with_all_of_it(streamed):
    _, open_stream = streamed

    async def run():
        return [(one.first_index, one.factors.shape[0]) async for one in open_stream(Context())]

    assert asyncio.run(run()) == [(0, 32), (32, 32), (64, 32), (96, 4)]


def test_a_sample_that_no_message_has_room_for_is_refused(streamed, bundle, monkeypatch):
    monkeypatch.setattr(responses, "STREAMED_BYTES", 0)  # one a message
    monkeypatch.setattr(responses, "MAX_MESSAGE_BYTES", responses.Sizes(bundle.manifest).most(1, latents=False) - 1)
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
        with held.room.opened() as kept:
            kept.read(10)
            kept.begun(10, 1000)
        kept.answered(100, 1000)
        kept.taken(100)
        kept.read(-10)
        return held.room._kept, held.room._waiting

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


@pytest.fixture
def analysis(bundle):
    """A request, and the bytes of its largest answer."""
    request = pb.RespondRequest(inputs=[*latent_request(bundle).inputs] * 4)
    return request, responses.Sizes(bundle.manifest).analysis(4, len(bundle.manifest.layout.names))


async def responded(rpcs, request):
    context = Context()
    await rpcs.respond(request, context)
    return context.code


def test_what_analyses_work_with_has_a_bound_of_its_own(analysis, rpcs, monkeypatch):
    request, size = analysis
    monkeypatch.setattr(room, "MAX_BYTES_HELD", 4 * 5 * size)

    async def run():
        with rpcs._answering.room.works(1):
            beside = await responded(rpcs, request)
        with rpcs._answering.room.held(room.MAX_BYTES_HELD - request.ByteSize()):
            alone = await responded(rpcs, request)
        monkeypatch.setattr(room, "MAX_BYTES_HELD", size)
        return beside, alone, await responded(rpcs, request), rpcs._answering.room._working

    no_head = grpc.StatusCode.FAILED_PRECONDITION
    assert asyncio.run(run()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, no_head, no_head, 0)


def test_an_analysis_under_way_does_not_hold_up_streams(analysis, rpcs, monkeypatch):
    request, size = analysis
    gate, work = asyncio.Event(), rpcs._engine.classified

    async def gated(*arguments):
        await gate.wait()
        return await work(*arguments)

    monkeypatch.setattr(rpcs._engine, "classified", gated)
    monkeypatch.setattr(room, "MAX_BYTES_HELD", 2 * size)

    async def run():
        call = asyncio.create_task(responded(rpcs, request))
        while not rpcs._answering.room._bytes:
            await asyncio.sleep(0)
        kept = room.Kept(rpcs._answering.room)
        assert rpcs._answering.room._fits(size - request.ByteSize(), 0, kept)
        gate.set()
        await call

    asyncio.run(run())


def test_an_analysis_that_no_message_has_room_for_is_told_so_however_busy_the_replica_is(analysis, rpcs, monkeypatch):
    request, size = analysis
    monkeypatch.setattr(responses, "MAX_MESSAGE_BYTES", size - 1)
    monkeypatch.setattr(room, "MAX_BYTES_HELD", 4 * size)

    async def run():
        with rpcs._answering.room.held(1), rpcs._answering.room.works(1):
            return await responded(rpcs, request)

    assert asyncio.run(run()) is grpc.StatusCode.INVALID_ARGUMENT


def noise(side):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(file, "PNG")
    return pb.Input(encoded_image=file.getvalue())


def bulk_edits(rpcs, count, items, image_format):
    request = raw_edit_of(rpcs, items)
    request.format = image_format

    async def requests():
        for index in range(count):
            yield pb.EditStreamRequest(item_id=str(index), request=request)

    return rpcs.edit_stream(requests(), Context())


def test_a_walk_from_a_large_picture_has_room_beside_streams_that_fill_theirs(bundle, monkeypatch):
    rpcs = rpcs_of(bundle, quick_graphs(bundle))
    walk = pb.TraverseRequest(start=noise(700), frames=2, format=pb.IMAGE_FORMAT_NONE, resize=True)
    walk.random.seed = 1
    assert walk.ByteSize() > 1024 * 1024
    gate, work = asyncio.Event(), rpcs._edited
    monkeypatch.setattr(room, "MAX_BYTES_HELD", 4 * walk.ByteSize())

    async def gated(*arguments):
        await gate.wait()
        return await work(*arguments)

    monkeypatch.setattr(rpcs, "_edited", gated)

    async def run():
        answers = bulk_edits(rpcs, 100, 16, pb.IMAGE_FORMAT_RAW)
        taking = asyncio.create_task(anext(answers))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert rpcs._answering.room._kept + walk.ByteSize() > room.MAX_BYTES_HELD // 2
        context = Context()
        frames = [one.factors.shape[0] async for one in rpcs.traverse(walk, context)]
        assert (frames, context.code) == ([2], None)
        gate.set()
        await taking
        return len([one async for one in answers])

    assert asyncio.run(run()) == 99


@pytest.mark.parametrize("kind", ["interpret", "edit"])
def test_a_stream_with_many_messages_waits_for_room_in_turn_with_others(kind, rpcs, monkeypatch):
    order, read = [], rpcs._read.items.inputs

    async def noting(inputs, *arguments, **options):
        order.append(inputs[0].factors.shape[0])
        return await read(inputs, *arguments, **options)

    monkeypatch.setattr(rpcs._read.items, "inputs", noting)

    async def take(count, items):
        async def messages():
            for _ in range(count):
                edit = raw_edit_of(rpcs, items)
                if kind == "edit":
                    yield pb.EditStreamRequest(request=edit)
                else:
                    yield pb.InterpretStreamRequest(request=pb.InterpretRequest(inputs=edit.targets))

        stream = rpcs.edit_stream if kind == "edit" else rpcs.interpret_stream
        assert [one.HasField("error") async for one in stream(messages(), Context())] == [False] * count

    async def run():
        async with rpcs._engine.compute.admitted(8, patient=False):
            many = asyncio.create_task(take(4, 4))
            await asyncio.sleep(0.05)
            few = asyncio.create_task(take(1, 3))
            await asyncio.sleep(0.05)
            assert order == []
        await asyncio.gather(many, few)

    asyncio.run(asyncio.wait_for(run(), 20))
    assert order == [4, 3, 4, 4, 4]  # of 8 items streams may have half


def test_an_idle_stream_holds_neither_its_last_request_nor_its_answer(bundle):
    class Held:
        """A message that a weak reference can be had of."""

        def __init__(self, item_id, **what):
            self.item_id, self.request = item_id, pb.InterpretRequest()
            held.append(weakref.ref(self))

        def ByteSize(self):
            return 1

    held, end = [], asyncio.Event()
    rpcs = rpcs_of(bundle, quick_graphs(bundle))

    async def requests():
        for index in range(2):
            yield Held(str(index))
        await end.wait()

    async def work(request, trace):
        return request

    async def run():
        answers = rpcs._answering.each("Any", requests(), work, lambda request: 0, Held, 64, Context())
        for _ in range(2):
            await anext(answers)
        rest = asyncio.create_task(anext(answers, None))
        await asyncio.sleep(0.05)
        left = [one() for one in held]
        end.set()
        await rest
        return left

    assert asyncio.run(run()) == [None] * 4


def test_calls_that_leave_take_the_pictures_that_wait_for_a_thread_with_them(rpcs, monkeypatch):
    gate, seen, encode_picture, alive = threading.Event(), [], responses.encode_picture, []

    def gated(*arguments):
        seen.append(None)
        gate.wait(20)
        return encode_picture(*arguments)

    decode = rpcs._engine._decoded

    async def noted(*arguments):
        found = await decode(*arguments)
        alive.append(weakref.ref(found.images))
        return found

    monkeypatch.setattr(responses, "encode_picture", gated)
    monkeypatch.setattr(responses, "VALUES_ENCODED_AT_ONCE", 0)
    monkeypatch.setattr(rpcs._engine, "_decoded", noted)
    request = raw_edit_of(rpcs, 1)
    request.format = pb.IMAGE_FORMAT_PNG

    async def run():
        for round_number in range(1, 4):
            calls = [asyncio.create_task(rpcs.edit(request, Context())) for _ in range(5)]
            while len(alive) < 5 * round_number or len(seen) < CODECS:
                await asyncio.sleep(0.001)
            for one in calls:
                one.cancel()
            await asyncio.wait(calls)
        del calls, one
        await asyncio.sleep(0)
        gc.collect()
        left, under_way = sum(one() is not None for one in alive), rpcs._engine.compute._items
        gate.set()
        await rpcs.edit(request, context := Context())
        return left, under_way, context.code

    assert asyncio.run(asyncio.wait_for(run(), 30)) == (CODECS, 0, None)


def test_a_replica_of_many_threads_has_as_many_that_encode_and_two_that_decode():
    assert [Compute(threads=threads).encode._free._value for threads in (1, 8)] == [CODECS, 8]
    assert Compute(threads=8).decode._free._value == CODECS


def test_of_a_long_name_of_a_factor_a_part_is_told(rpcs):
    name, request, context = b"\0" * 1_000_000, inference_pb.ModelInferRequest(model_name="edit"), Context()
    for prefix in ("", "source_"):
        size = rpcs._engine.manifest.size
        tensor = request.inputs.add(name=f"{prefix}factors", datatype="FP32", shape=[1, size])
        tensor.contents.fp32_contents.extend([0.0] * size)
    request.inputs.add(name="factor", datatype="BYTES", shape=[1]).contents.bytes_contents.append(name)
    tracemalloc.start()
    try:
        asyncio.run(inference_of(rpcs).model_infer(request, context))
        assert tracemalloc.get_traced_memory()[1] < 4 * len(name)  # Python writes each as four characters
    finally:
        tracemalloc.stop()
    assert re.search(r"names out of .*, got '(\\x00)*\.\.\.$", context.details)


@pytest.mark.parametrize("call", [edit, sample, traverse])
def test_a_model_that_gives_no_images_says_so_before_it_reads_or_computes(call, bundle, monkeypatch):
    graphs = {role: graph for role, graph in bundle.manifest.graphs.items() if role != "decoder"}
    without = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, graphs=graphs))
    rpcs, context = rpcs_of(without, raising(AssertionError("computed"))), Context()
    monkeypatch.setattr(inputs, "open_picture", None)
    monkeypatch.setattr(rpcs._read, "wanted", lambda request: Wanted(images=True))
    asyncio.run(call(rpcs, [picture(), picture()], context))
    assert context.code is grpc.StatusCode.FAILED_PRECONDITION


def test_an_overflow_of_a_start_is_blamed_on_the_field_that_gives_it(bundle):
    def run(role, items):
        found = quick_graphs(bundle)(role, items)
        return (found[0] + np.inf, found[1]) if role == "inverse" else found

    rpcs, context = rpcs_of(bundle, run), Context()
    request = pb.TraverseRequest(start=raw_edit_of(rpcs, 1).targets[0], frames=2, format=pb.IMAGE_FORMAT_RAW)
    request.random.temperature = 0.0

    async def run():
        return [one async for one in rpcs.traverse(request, context)]

    assert asyncio.run(run()) == []
    assert context.details.startswith("start.factors: ")
