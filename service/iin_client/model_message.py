"""The model's description from its message."""

from iin_api.v1 import interpretation_pb2 as pb

from iin_client.model import FactorSlice, Figure, Graph, ImageSpec, Limits, Model, Quantile, ServedModel

__all__ = ["model_description", "served_models"]


def model_description(response: pb.GetModelResponse) -> Model:
    """Result of `Client.get_model`."""
    model = response.model
    return Model(
        name=model.name,
        version=model.version,
        family=model.family,
        image=ImageSpec(
            channels=model.image.channels,
            height=model.image.height,
            width=model.image.width,
            minimum=model.image.minimum,
            maximum=model.image.maximum,
        ),
        latent_shape=tuple(model.latent_shape),
        factors=tuple(FactorSlice(name=f.name, start=f.start, size=f.size) for f in model.factors),
        log_likelihood_quantiles=tuple(
            Quantile(probability=q.probability, value=q.value) for q in model.log_likelihood_quantiles
        ),
        evaluation=tuple(_figure(figure) for figure in model.evaluation),
        round_trip_error=model.round_trip_error,
        graphs=tuple(Graph(role=g.role, sha256=g.sha256, bytes=g.bytes) for g in model.graphs),
        recipe=model.recipe,
        data_set=model.data_set,
        created=model.created,
        limits=_limits(response.limits),
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


def _figure(figure: pb.Figure) -> Figure:
    return Figure(
        name=figure.name,
        value=figure.value,
        ceiling=figure.ceiling if figure.HasField("ceiling") else None,
        floor=figure.floor if figure.HasField("floor") else None,
        meaning=figure.meaning,
    )


def _limits(limits: pb.Limits) -> Limits:
    return Limits(
        max_items=limits.max_items,
        max_samples=limits.max_samples,
        max_edits=limits.max_edits,
        max_image_pixels=limits.max_image_pixels,
        max_message_bytes=limits.max_message_bytes,
        max_batch_size=limits.max_batch_size,
        max_queued_items=limits.max_queued_items,
        stream_window=limits.stream_window,
        samples_per_message=limits.samples_per_message,
    )
