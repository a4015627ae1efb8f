"""What is refused because its answer would be larger than a message, and what is not."""

import asyncio
import math

import grpc
import numpy as np
import pytest
from iin_api.inference import grpc_service_pb2 as inference_pb
from iin_api.v1 import interpretation_pb2 as pb
from iin_service import responses
from iin_service.items import Trace

from .fakes import Context, inference_of, quick_graphs, raising, raw_edit, rpcs_of
from .test_bounds import raw_edit_of, samples


def edited(rpcs, requests):
    async def each():
        for index, request in enumerate(requests):
            yield pb.EditStreamRequest(item_id=str(index), request=request)

    async def run():
        return [one async for one in rpcs.edit_stream(each(), Context())]

    return asyncio.run(run())


def test_what_no_message_has_room_for_is_refused_by_itself_before_it_is_computed(bundle, monkeypatch):
    rpcs, large = rpcs_of(bundle, raising(AssertionError("computed"))), raw_edit(bundle, 20)
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

    def run(role, items):
        return (noise[: len(items)],) if role == "decoder" else quick_graphs(bundle)(role, items)

    monkeypatch.setattr(responses, "MAX_MESSAGE_BYTES", 20 * math.prod(bundle.manifest.image.shape))
    requests = [raw_edit(bundle, count) for count in (20, 1, 20)]
    for one in requests:
        one.format = pb.IMAGE_FORMAT_PNG
    answers = edited(rpcs_of(bundle, run), requests)
    assert [one.HasField("error") for one in answers] == [True, False, True]
    assert answers[0].error.violations[0].field == "format"


@pytest.mark.parametrize("slack", [0, 1])
@pytest.mark.parametrize("model", ["interpret", "edit", "sample", "inverse"])
def test_tensors_that_no_message_has_room_for_are_refused_before_they_are_computed(model, slack, bundle, monkeypatch):
    computed, size, image = [], bundle.manifest.size, math.prod(bundle.manifest.image.shape)

    def run(role, items):
        computed.append(role)
        return quick_graphs(bundle)(role, items)

    rpcs = rpcs_of(bundle, run)
    item = {"interpret": 8 * size + 16, "inverse": 4 * size + 4}.get(model, 8 * size + 4 * image)
    monkeypatch.setattr(responses, "MAX_MESSAGE_BYTES", responses.MESSAGE_BYTES + 1000 + 2 * item - slack)
    request, context = inference_pb.ModelInferRequest(model_name=model, id=1000 * "i"), Context()
    if model == "sample":
        request.inputs.add(name="count", datatype="INT64", shape=[1]).contents.int64_contents.append(2)
    else:
        # The bundle's own graphs have names of their own.
        name = bundle.manifest.graphs[model].inputs[0].name if model == "inverse" else "factors"
        tensor = request.inputs.add(name=name, datatype="FP32", shape=[2, size])
        tensor.contents.fp32_contents.extend([0.0] * 2 * size)
    if model == "edit":
        request.inputs.add(name="source_factors", datatype="FP32", shape=[1, size]).contents.fp32_contents.extend(
            [0.0] * size
        )
        request.inputs.add(name="factor", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"digit")
    asyncio.run(inference_of(rpcs).model_infer(request, context))
    assert context.code is (grpc.StatusCode.INVALID_ARGUMENT if slack else None)
    assert bool(computed) == (not slack)
    if slack:
        assert context.details.startswith("outputs: ")


def test_a_message_of_a_stream_has_fewer_samples_where_they_are_large(bundle, monkeypatch):
    rpcs = rpcs_of(bundle, quick_graphs(bundle))
    assert rpcs.description().limits.samples_per_message == 32
    monkeypatch.setattr(responses, "STREAMED_BYTES", responses.Sizes(bundle.manifest).most(7))
    rpcs = rpcs_of(bundle, quick_graphs(bundle))
    assert rpcs.description().limits.samples_per_message == 7

    async def run():
        return [one.factors.shape[0] async for one in samples(rpcs, Context())]

    assert asyncio.run(run()) == [7] * 14 + [2]


@pytest.mark.parametrize(
    ("output", "run"), [("factors", set()), ("latent", {"inverse"}), ("image", {"inverse", "decoder"})]
)
def test_model_infer_computes_no_output_that_is_not_wanted(output, run, rpcs):
    request = inference_pb.ModelInferRequest(model_name="sample")
    request.inputs.add(name="count", datatype="INT64", shape=[1]).contents.int64_contents.append(2)
    request.outputs.add(name=output)
    response = asyncio.run(inference_of(rpcs).model_infer(request, Context()))
    assert [one.name for one in response.outputs] == [output]
    ran = {name.removesuffix("_compute_ms") for name in response.parameters if name.endswith("_compute_ms")}
    assert ran == run


def test_no_room_is_kept_for_what_an_answer_never_has(rpcs):
    """Interpret gives no images, Edit none and no latents where they are not asked for."""
    sizes, items = responses.Sizes(rpcs._engine.manifest), 3
    image, size = 4 * math.prod(rpcs._engine.manifest.image.shape), rpcs._engine.layout.size
    edit = raw_edit_of(rpcs, items)
    edit.return_latents = True
    assert rpcs._most_edited(edit) == sizes.most(items)
    edit.return_latents = False
    assert rpcs._most_edited(edit) == sizes.most(items) - items * 4 * size
    edit.format = pb.IMAGE_FORMAT_PNG
    assert rpcs._most_edited(edit) == sizes.most(items) - items * 4 * size
    edit.format = pb.IMAGE_FORMAT_NONE
    assert rpcs._most_edited(edit) == sizes.most(items) - items * (4 * size + image)
    assert rpcs._most_interpreted(pb.InterpretRequest(inputs=edit.targets)) == sizes.most(items) - items * image


@pytest.mark.parametrize("image_format", [pb.IMAGE_FORMAT_NONE, pb.IMAGE_FORMAT_RAW, pb.IMAGE_FORMAT_PNG])
def test_an_edit_is_not_refused_for_latents_that_it_does_not_ask_for(image_format, rpcs, monkeypatch):
    request, context = raw_edit_of(rpcs, 5), Context()
    request.format = image_format
    most = rpcs._sizes.most(5, images=image_format == pb.IMAGE_FORMAT_RAW, latents=False)
    monkeypatch.setattr(responses, "MAX_MESSAGE_BYTES", most)
    asyncio.run(rpcs.edit(request, context))
    assert context.code is None


@pytest.mark.parametrize("slack", [0, 1])
def test_files_have_all_the_room_of_a_message(slack, rpcs, monkeypatch):
    request = raw_edit_of(rpcs, 5)
    request.format = pb.IMAGE_FORMAT_PNG
    encode_picture, written = responses.encode_picture, []
    # Of bytes that do not depend on how long something took, but for what the timing says.
    monkeypatch.setattr(responses, "encode_picture", lambda *one: encode_picture(*one) + bytes(10_000))
    decoded = rpcs._decoded

    async def noted(*arguments, **more):
        written.append(await decoded(*arguments, **more))
        return written[-1]

    monkeypatch.setattr(rpcs, "_decoded", noted)
    context = Context()
    asyncio.run(rpcs.edit(request, context))
    monkeypatch.setattr(responses, "MAX_MESSAGE_BYTES", written[0].ByteSize() - 2000 * slack + 200)
    asyncio.run(rpcs.edit(request, context))
    assert context.code is (grpc.StatusCode.INVALID_ARGUMENT if slack else None)


def test_the_identifier_of_an_item_counts_where_its_answer_has_just_room(rpcs, monkeypatch):
    request, edited_one = raw_edit_of(rpcs, 5), rpcs._edited

    async def run():
        response = await edited_one(request, Trace())
        monkeypatch.setattr(responses, "MAX_MESSAGE_BYTES", rpcs._most_edited(request))

        async def requests():
            for item_id in ("a", "a" * 40_000):
                yield pb.EditStreamRequest(item_id=item_id, request=request)

        return response, [one async for one in rpcs.edit_stream(requests(), Context())]

    response, answers = asyncio.run(run())
    assert len(response.images.raw.data) > 0
    assert [one.HasField("error") for one in answers] == [False, True]
    assert answers[1].item_id == "a" * 40_000
