"""Python values from response messages."""

from typing import Any

import numpy as np
from iin_api.v1 import interpretation_pb2 as pb
from numpy.typing import NDArray

from iin_client.results import (
    Edited,
    FactorResponse,
    Frames,
    Images,
    Interpretations,
    Responses,
    Samples,
    StageTiming,
    Timing,
)

__all__ = ["edited", "frames", "interpretations", "responses", "samples"]


def interpretations(response: pb.InterpretResponse) -> Interpretations:
    """Result of `Client.interpret`."""
    has_head = response.HasField("probabilities")
    return Interpretations(
        latents=_array(response.latents, "latents"),
        factors=_array(response.factors, "factors"),
        log_likelihoods=np.array(response.log_likelihoods, dtype=np.float64),
        log_likelihood_quantiles=np.array(response.log_likelihood_quantiles, dtype=np.float64),
        probabilities=_array(response.probabilities, "probabilities") if has_head else None,
        timing=_timing(response.timing),
    )


def edited(response: pb.EditResponse) -> Edited:
    """Result of `Client.edit`."""
    return Edited(**_decoded(response))


def samples(response: pb.SampleResponse) -> Samples:
    """One message of `Client.sample`."""
    return Samples(first_index=response.first_index, **_decoded(response))


def frames(response: pb.TraverseResponse) -> Frames:
    """One message of `Client.traverse`."""
    return Frames(first_index=response.first_index, **_decoded(response))


# Any: the fields that three messages have in common.
def _decoded(response: pb.EditResponse | pb.SampleResponse | pb.TraverseResponse) -> dict[str, Any]:
    def array(field: str) -> NDArray[np.float32] | None:
        return _array(getattr(response, field), field) if response.HasField(field) else None

    return {
        "images": _images(response.images),
        "factors": _array(response.factors, "factors"),
        "latents": array("latents"),
        "probabilities": array("probabilities"),
        "timing": _timing(response.timing),
    }


def responses(response: pb.RespondResponse) -> Responses:
    """Result of `Client.respond`."""
    return Responses(
        probabilities=_array(response.probabilities, "probabilities"),
        factors={
            one.factor: FactorResponse(
                mean_probabilities=_array(one.mean_probabilities, "mean_probabilities"),
                probability_deviations=_array(one.probability_deviations, "probability_deviations"),
                class_deviations=np.array(one.class_deviations, dtype=np.float64),
                class_changes=np.array(one.class_changes, dtype=np.float64),
            )
            for one in response.factors
        },
        timing=_timing(response.timing),
    )


def _array(tensor: pb.Tensor, field: str) -> NDArray[np.float32]:
    expected = 4 * int(np.prod(tensor.shape)) if tensor.shape else -1
    if len(tensor.data) != expected:
        raise ValueError(
            f"{field}: expected the service to send 4 bytes an element for shape {tuple(tensor.shape)}, "
            f"got {len(tensor.data)} bytes; client and service do not speak the same API version"
        )
    return np.frombuffer(tensor.data, dtype="<f4").reshape(tensor.shape).astype(np.float32)


def _images(images: pb.Images) -> Images:
    raw = _array(images.raw, "images.raw") if images.HasField("raw") else None
    return Images(files=tuple(images.encoded), raw=raw)


def _timing(timing: pb.Timing) -> Timing:
    return Timing(
        total_ms=timing.total_ms,
        queue_ms=timing.queue_ms,
        codec_ms=timing.codec_ms,
        stages=tuple(
            StageTiming(
                stage=stage.stage,
                queue_ms=stage.queue_ms,
                compute_ms=stage.compute_ms,
                batch_size=stage.batch_size,
            )
            for stage in timing.stages
        ),
    )
