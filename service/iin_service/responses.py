"""From the engine's results to response messages."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from iin_api.v1 import interpretation_pb2 as pb
from iin_bundle import ImageSpec, Manifest

from iin_service.errors import InvalidInput
from iin_service.graphs import Codec
from iin_service.images import MAX_PIXELS, encode_picture
from iin_service.items import Decoded, Interpreted, Limits, Response, Trace
from iin_service.stage import Array

__all__ = [
    "MAX_MESSAGE_BYTES",
    "Sizes",
    "analysis",
    "check_bytes",
    "decoded",
    "interpretation",
    "limits",
    "model",
    "timing",
]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
STREAMED_BYTES = 4 * 1024 * 1024  # of a message of samples or frames: what a gRPC client takes by default
VALUES_ENCODED_AT_ONCE = 16 * 3 * 32 * 32  # so many are encoded more quickly than a thread is woken for it

MESSAGE_BYTES = 16_384  # of an answer beside its items; an error in its place is no larger
ITEM_BYTES = 1024  # of an item beside its numbers: its timing, and what its file has beside pixels


class Sizes:
    """The largest answers of one model, in bytes, known before anything is computed."""

    def __init__(self, manifest: Manifest) -> None:
        """Adds up the parts of an item once, since every call asks."""
        head = manifest.graphs.get("head")
        self._classes = int(head.outputs[0].shape[1]) if head else 0
        self._image = 4 * math.prod(manifest.image.shape)
        self._latent = 4 * manifest.size
        self._other = 4 * (manifest.size + self._classes) + ITEM_BYTES

    def most(self, items: int, *, images: bool = True, latents: bool = True) -> int:
        """The largest answer to an InterpretRequest or EditRequest with so many items, `images` or `latents` included.

        The file of a small image may be larger than its numbers, by `ITEM_BYTES` at most.
        """
        item = self._other + (self._image if images else 0) + (self._latent if latents else 0)
        return MESSAGE_BYTES + items * item

    def analysis(self, items: int, factors: int) -> int:
        """The largest answer to a RespondRequest with so many items and factors."""
        return MESSAGE_BYTES + items * (ITEM_BYTES + (factors + 1) * 8 * (self._classes + 4))

    def samples_per_message(self, bounds: Limits) -> int:
        """Samples or frames in one message of a stream: fewer where images are large."""
        fit = (STREAMED_BYTES - MESSAGE_BYTES) // (self._image + self._latent + self._other)
        return max(1, min(fit, bounds.samples_per_message))


def check_bytes(size: int, field: str) -> None:
    """Refuse an answer larger than a message: the transport would end the whole stream for it."""
    if size > MAX_MESSAGE_BYTES:
        remedy = "split the items over several calls, or ask for less of each where there is a choice"
        raise InvalidInput(field, f"an answer of at most {MAX_MESSAGE_BYTES} bytes", f"one of {size}", remedy)


def interpretation(result: Interpreted, trace: Trace) -> pb.InterpretResponse:
    """The answer to an InterpretRequest."""
    return pb.InterpretResponse(
        latents=_tensor(result.latents),
        factors=_tensor(result.factors),
        log_likelihoods=result.log_likelihoods.tolist(),
        log_likelihood_quantiles=result.quantiles.tolist(),
        probabilities=None if result.probabilities is None else _tensor(result.probabilities),
        timing=timing(trace),
    )


# Any: the fields that three messages have in common.
async def decoded(
    result: Decoded, spec: ImageSpec, image_format: int, trace: Trace, in_thread: Codec
) -> dict[str, Any]:
    """Fields of the answer to an EditRequest, or of one message of those to a SampleRequest or TraverseRequest."""
    images = None if result.images is None else await _images(result.images, spec, image_format, trace, in_thread)
    return {
        "images": images,
        "factors": _tensor(result.factors),
        "latents": None if result.latents is None else _tensor(result.latents),
        "probabilities": None if result.probabilities is None else _tensor(result.probabilities),
        "timing": timing(trace),
    }


async def _images(images: Array, spec: ImageSpec, image_format: int, trace: Trace, in_thread: Codec) -> pb.Images:
    """Images `(N, C, H, W)` in the chosen format."""
    if image_format == pb.IMAGE_FORMAT_RAW:
        return pb.Images(raw=_tensor(images))
    started = time.perf_counter()
    name = pb.ImageFormat.Name(image_format).removeprefix("IMAGE_FORMAT_")

    def encode() -> list[bytes]:
        return [encode_picture(image, spec, name) for image in images]

    few = images.size <= VALUES_ENCODED_AT_ONCE
    files = encode() if few else await in_thread(encode, patient=trace.patient)
    trace.codec_seconds += time.perf_counter() - started
    return pb.Images(encoded=files)


def analysis(before: Array, found: Sequence[Response], trace: Trace) -> pb.RespondResponse:
    """The answer to a RespondRequest."""
    return pb.RespondResponse(
        probabilities=_tensor(before),
        factors=[
            pb.FactorResponse(
                factor=one.factor,
                mean_probabilities=_tensor(one.mean_probabilities),
                probability_deviations=_tensor(one.probability_deviations),
                class_deviations=one.class_deviations,
                class_changes=one.class_changes,
            )
            for one in found
        ],
        timing=timing(trace),
    )


def model(manifest: Manifest) -> pb.Model:
    """The description of the model."""
    quantiles = manifest.log_likelihood_quantiles
    return pb.Model(
        name=manifest.name,
        version=manifest.version,
        family=manifest.family,
        image=pb.ImageSpec(**{name: value for name, value in vars(manifest.image).items() if name != "layout"}),
        latent_shape=manifest.latent_shape,
        factors=[pb.Factor(**vars(part)) for part in manifest.layout],
        log_likelihood_quantiles=[
            pb.Quantile(probability=probability, value=value)
            for probability, value in zip(quantiles.probabilities, quantiles.values, strict=True)
        ],
        evaluation=[pb.Figure(name=name, **vars(figure)) for name, figure in manifest.evaluation.items()],
        round_trip_error=manifest.round_trip_error,
        graphs=[
            pb.Graph(role=role, sha256=graph.file.sha256, bytes=graph.file.bytes)
            for role, graph in manifest.graphs.items()
        ],
        recipe=manifest.provenance.recipe,
        data_set=manifest.provenance.data_set,
        created=manifest.provenance.created,
    )


def limits(bounds: Limits, sizes: Sizes) -> pb.Limits:
    """What a call may ask for."""
    own = replace(bounds, samples_per_message=sizes.samples_per_message(bounds))
    return pb.Limits(max_image_pixels=MAX_PIXELS, max_message_bytes=MAX_MESSAGE_BYTES, **vars(own))


def _tensor(array: Array) -> pb.Tensor:
    """An array as a message."""
    return pb.Tensor(shape=array.shape, data=np.ascontiguousarray(array, "<f4").tobytes())


def timing(trace: Trace) -> pb.Timing:
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
