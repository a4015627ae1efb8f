"""Python values from response messages."""

from typing import Any, TypeVar

import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from iin_api.v1 import interpretation_pb2 as pb
from numpy.typing import NDArray

from iin_client.model import FactorSlice, Figure, Graph, ImageSpec, Limits, Model, Quantile, ServedModel
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

__all__ = [
    "application_names",
    "edited",
    "frames",
    "interpretations",
    "model_description",
    "responses",
    "samples",
    "served_models",
]

Kind = TypeVar("Kind")


def interpretations(response: pb.InterpretResponse) -> Interpretations:
    """Result of `Client.interpret`."""
    return Interpretations(
        latents=_array(response.latents),
        factors=_array(response.factors),
        log_likelihoods=np.array(response.log_likelihoods, dtype=np.float64),
        log_likelihood_quantiles=np.array(response.log_likelihood_quantiles, dtype=np.float64),
        probabilities=_optional_array(response, "probabilities"),
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
    return {
        "images": Images(files=tuple(response.images.encoded), raw=_optional_array(response.images, "raw")),
        "factors": _array(response.factors),
        "latents": _optional_array(response, "latents"),
        "probabilities": _optional_array(response, "probabilities"),
        "timing": _timing(response.timing),
    }


def responses(response: pb.RespondResponse) -> Responses:
    """Result of `Client.respond`."""
    return Responses(
        probabilities=_array(response.probabilities),
        factors={
            one.factor: FactorResponse(
                mean_probabilities=_array(one.mean_probabilities),
                probability_deviations=_array(one.probability_deviations),
                class_deviations=np.array(one.class_deviations, dtype=np.float64),
                class_changes=np.array(one.class_changes, dtype=np.float64),
            )
            for one in response.factors
        },
        timing=_timing(response.timing),
    )


def model_description(response: pb.GetModelResponse) -> Model:
    """Result of `Client.get_model`."""
    model = response.model
    return _same(
        Model,
        model,
        image=_same(ImageSpec, model.image),
        latent_shape=tuple(model.latent_shape),
        factors=tuple(_same(FactorSlice, factor) for factor in model.factors),
        log_likelihood_quantiles=tuple(_same(Quantile, one) for one in model.log_likelihood_quantiles),
        evaluation=tuple(_figure(figure) for figure in model.evaluation),
        graphs=tuple(_same(Graph, graph) for graph in model.graphs),
        limits=_same(Limits, response.limits),
    )


def served_models(response: pb.ListModelsResponse) -> tuple[ServedModel, ...]:
    """Result of `Client.list_models`."""
    return tuple(
        ServedModel(
            application=one.application,
            state=pb.ApplicationState.Name(one.state).removeprefix("APPLICATION_STATE_"),
            model=model_description(one.description) if one.HasField("description") else None,
        )
        for one in response.models
    )


def application_names(response: bytes) -> list[str]:
    """Names of the applications in an answer of Ray's own ListApplications."""
    # A FieldMask has the fields of Ray's message: repeated strings, number 1.
    return list(FieldMask.FromString(response).paths)


def _array(tensor: pb.Tensor) -> NDArray[np.float32]:
    return np.frombuffer(tensor.data, dtype="<f4").reshape(tensor.shape).astype(np.float32)


def _optional_array(message: Message, field: str) -> NDArray[np.float32] | None:
    return _array(getattr(message, field)) if message.HasField(field) else None


def _timing(timing: pb.Timing) -> Timing:
    return _same(Timing, timing, stages=tuple(_same(StageTiming, stage) for stage in timing.stages))


def _figure(figure: pb.Figure) -> Figure:
    return _same(
        Figure,
        figure,
        ceiling=figure.ceiling if figure.HasField("ceiling") else None,
        floor=figure.floor if figure.HasField("floor") else None,
    )


def _same(kind: type[Kind], message: Message, **others: Any) -> Kind:
    """A dataclass with the fields of the same names in `message`, but for `others`."""
    return kind(**{name: getattr(message, name) for name in kind.__annotations__ if name not in others}, **others)
