"""Models and interpretations as text for people."""

import textwrap
from collections.abc import Sequence

import numpy as np

from iin_client.model import Model, ServedModel
from iin_client.results import Interpretations, Responses

__all__ = ["describe_interpretations", "describe_model", "describe_models", "describe_responses"]

_WIDTH = 100


def describe_model(model: Model) -> str:
    """What is served, in aligned columns."""
    image = model.image
    size = f"{image.channels} x {image.height} x {image.width}"
    facts = [
        ("model", f"{model.name} {model.version} ({model.family})"),
        ("data set", model.data_set),
        ("recipe", model.recipe),
        ("created", model.created),
        ("images", f"{size}, from {image.minimum:g} to {image.maximum:g}"),
        ("latent", " x ".join(map(str, model.latent_shape))),
        ("round trip", f"{model.round_trip_error:.2g} at most"),
    ]
    factors = [(part.name, str(part.start), str(part.size)) for part in model.factors]
    figures = [
        (figure.name, _number(figure.value), _number(figure.ceiling), _number(figure.floor), figure.meaning)
        for figure in model.evaluation
    ]
    quantiles = [(f"{q.probability:g}", f"{q.value:.2f}") for q in model.log_likelihood_quantiles]
    graphs = [(graph.role, str(graph.bytes), graph.sha256[:12]) for graph in model.graphs]
    limits = [(name.replace("_", " "), str(value)) for name, value in vars(model.limits).items()]
    return "\n\n".join(
        [
            _table((), facts),
            _table(("factor", "start", "dimensions"), factors),
            _table(("figure", "value", "ceiling", "floor", "meaning"), figures),
            _table(("held-out images", "log-likelihood"), quantiles),
            _table(("graph", "bytes", "sha256"), graphs),
            _table(("limit", ""), limits),
        ]
    )


def describe_interpretations(names: Sequence[str], model: Model, found: Interpretations) -> str:
    """Likelihood, and norm and values of every factor, of the items called `names`."""
    rows = [
        (name, f"{found.log_likelihoods[index]:.2f}", f"{found.log_likelihood_quantiles[index]:.3f}")
        for index, name in enumerate(names)
    ]
    blocks = [_table(("image", "log-likelihood", "quantile"), rows)]
    split = model.split(found.factors)
    for index, name in enumerate(names):
        lines = [name]
        for factor, values in split.items():
            norm = float(np.linalg.norm(values[index]))
            lines.append(_values(f"{factor}  |{norm:.2f}|", values[index].tolist()))
        if found.probabilities is not None:
            lines.append(_values("probabilities", found.probabilities[index].tolist()))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def describe_models(models: Sequence[ServedModel]) -> str:
    """The models that are served side by side."""
    rows = [
        (one.application, one.state, "-", "-", "-")
        if one.model is None
        else (
            one.application,
            one.state,
            f"{one.model.name} {one.model.version}",
            one.model.recipe,
            " ".join(f"{part.name}:{part.size}" for part in one.model.factors),
        )
        for one in models
    ]
    return _table(("application", "state", "model", "recipe", "factors"), rows)


def describe_responses(names: Sequence[str], found: Responses) -> str:
    """What drawing each factor anew does to the classes of the items called `names`."""
    rows = [
        (
            name,
            str(int(found.probabilities[index].argmax())),
            f"{found.probabilities[index].max():.2f}",
            factor,
            f"{response.class_changes[index]:.2f}",
            f"{response.class_deviations[index]:.2f}",
        )
        for index, name in enumerate(names)
        for factor, response in found.factors.items()
    ]
    return _table(("image", "class", "probability", "factor drawn anew", "class changes", "class deviation"), rows)


def _values(label: str, values: Sequence[float]) -> str:
    text = " ".join(f"{value:.2f}" for value in values)
    return textwrap.fill(text, _WIDTH, initial_indent=f"  {label:<19} ", subsequent_indent=" " * 22)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, *rows] if header else list(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
