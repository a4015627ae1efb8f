"""From the engine's results to response messages."""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from iin_api.v1 import interpretation_pb2 as pb
from iin_bundle import ImageSpec, Manifest

from iin_service.images import MAX_PIXELS, encode_picture
from iin_service.items import Decoded, Interpreted, Limits, Response, Trace
from iin_service.stage import Array

__all__ = [
    "MAX_MESSAGE_BYTES",
    "edited",
    "frames",
    "interpretation",
    "limits",
    "model",
    "most_bytes",
    "responses",
    "samples",
]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
VALUES_ENCODED_AT_ONCE = 16 * 3 * 32 * 32  # up to here encoding is quicker than waking a thread for it

# Of an answer beside its arrays: an error in its place; of each item: what a file has beside pixels, and its timing.
MESSAGE_BYTES, ITEM_BYTES = 16_384, 1024


def most_bytes(manifest: Manifest, items: int) -> int:
    """What no answer to an InterpretRequest or EditRequest with so many inputs or targets is larger than."""
    head = manifest.graphs.get("head")
    classes = int(head.outputs[0].shape[1]) if head else 0
    numbers = math.prod(manifest.image.shape) + 2 * manifest.size + classes
    return MESSAGE_BYTES + items * (4 * numbers + ITEM_BYTES)


def interpretation(result: Interpreted, trace: Trace) -> pb.InterpretResponse:
    """The answer to an InterpretRequest."""
    return pb.InterpretResponse(
        latents=_tensor(result.latents),
        factors=_tensor(result.factors),
        log_likelihoods=result.log_likelihoods.tolist(),
        log_likelihood_quantiles=result.quantiles.tolist(),
        probabilities=None if result.probabilities is None else _tensor(result.probabilities),
        timing=_timing(trace),
    )


async def edited(result: Decoded, spec: ImageSpec, image_format: int, trace: Trace) -> pb.EditResponse:
    """The answer to an EditRequest."""
    return pb.EditResponse(**await _decoded(result, spec, image_format, trace))


async def samples(first: int, result: Decoded, spec: ImageSpec, image_format: int, trace: Trace) -> pb.SampleResponse:
    """One message of the answer to a SampleRequest."""
    return pb.SampleResponse(first_index=first, **await _decoded(result, spec, image_format, trace))


async def frames(first: int, result: Decoded, spec: ImageSpec, image_format: int, trace: Trace) -> pb.TraverseResponse:
    """One message of the answer to a TraverseRequest."""
    return pb.TraverseResponse(first_index=first, **await _decoded(result, spec, image_format, trace))


# Any: the fields that three messages have in common.
async def _decoded(result: Decoded, spec: ImageSpec, image_format: int, trace: Trace) -> dict[str, Any]:
    return {
        "images": None if result.images is None else await _images(result.images, spec, image_format, trace),
        "factors": _tensor(result.factors),
        "latents": None if result.latents is None else _tensor(result.latents),
        "probabilities": None if result.probabilities is None else _tensor(result.probabilities),
        "timing": _timing(trace),
    }


async def _images(images: Array, spec: ImageSpec, image_format: int, trace: Trace) -> pb.Images:
    """Images `(N, C, H, W)` in the format chosen."""
    if image_format == pb.IMAGE_FORMAT_RAW:
        return pb.Images(raw=_tensor(images))
    started = time.perf_counter()
    name = pb.ImageFormat.Name(image_format).removeprefix("IMAGE_FORMAT_")

    def encode() -> list[bytes]:
        return [encode_picture(image, spec, name) for image in images]

    files = encode() if images.size <= VALUES_ENCODED_AT_ONCE else await asyncio.to_thread(encode)
    trace.codec_seconds += time.perf_counter() - started
    return pb.Images(encoded=files)


def responses(before: Array, found: Sequence[Response], trace: Trace) -> pb.RespondResponse:
    """The answer to a RespondRequest."""
    return pb.RespondResponse(
        probabilities=_tensor(before),
        factors=[
            pb.FactorResponse(
                factor=one.factor,
                mean_probabilities=_tensor(one.mean_probabilities),
                probability_deviations=_tensor(one.probability_deviations),
                class_deviations=one.class_deviations.tolist(),
                class_changes=one.class_changes.tolist(),
            )
            for one in found
        ],
        timing=_timing(trace),
    )


def model(manifest: Manifest) -> pb.Model:
    """The description of the model."""
    quantiles, image = manifest.log_likelihood_quantiles, manifest.image
    return pb.Model(
        name=manifest.name,
        version=manifest.version,
        family=manifest.family,
        image=pb.ImageSpec(
            channels=image.channels,
            height=image.height,
            width=image.width,
            minimum=image.minimum,
            maximum=image.maximum,
        ),
        latent_shape=manifest.latent_shape,
        factors=[pb.Factor(name=part.name, start=part.start, size=part.size) for part in manifest.layout],
        log_likelihood_quantiles=[
            pb.Quantile(probability=probability, value=value)
            for probability, value in zip(quantiles.probabilities, quantiles.values, strict=True)
        ],
        evaluation=[
            pb.Figure(
                name=name,
                value=figure.value,
                ceiling=figure.ceiling,
                floor=figure.floor,
                meaning=figure.meaning,
            )
            for name, figure in manifest.evaluation.items()
        ],
        round_trip_error=manifest.round_trip_error,
        graphs=[
            pb.Graph(role=role, sha256=graph.file.sha256, bytes=graph.file.bytes)
            for role, graph in manifest.graphs.items()
        ],
        recipe=manifest.provenance.recipe,
        data_set=manifest.provenance.data_set,
        created=manifest.provenance.created,
    )


def limits(bounds: Limits) -> pb.Limits:
    """What a call may ask for."""
    return pb.Limits(
        max_items=bounds.max_items,
        max_samples=bounds.max_samples,
        max_edits=bounds.max_edits,
        max_image_pixels=MAX_PIXELS,
        max_message_bytes=MAX_MESSAGE_BYTES,
        max_batch_size=bounds.max_batch_size,
        max_queued_items=bounds.max_queued_items,
        stream_window=bounds.stream_window,
        samples_per_message=bounds.samples_per_message,
    )


def _tensor(array: Array) -> pb.Tensor:
    """An array as a message."""
    return pb.Tensor(shape=array.shape, data=np.ascontiguousarray(array, "<f4").tobytes())


def _timing(trace: Trace) -> pb.Timing:
    """Where the time of a call went, up to now."""
    return pb.Timing(
        total_ms=1e3 * (time.perf_counter() - trace.started),
        queue_ms=1e3 * sum(one.queue_seconds for one in trace.passes),
        codec_ms=1e3 * trace.codec_seconds,
        stages=[
            pb.StageTiming(
                stage=one.graph,
                queue_ms=1e3 * one.queue_seconds,
                compute_ms=1e3 * one.compute_seconds,
                batch_size=one.batch_size,
            )
            for one in trace.passes
        ],
    )
