"""The figures of a model for people: a Markdown card and a table for the terminal."""

from collections.abc import Mapping

from iin_bundle import Figure, Manifest
from iin_bundle.factors import RESIDUAL
from rich.table import Table

from iin_training.factor_sizes import allot_sizes

__all__ = ["model_card", "quality_table", "score_table"]

CARD = """# {model.name} (version {model.version})

An invertible interpretation network: it maps the latent vector of a frozen model to the factors below, without loss of
information. Each factor is meant to be standard normal and independent of the others.

| factor | dimensions | size |
|---|---|---|
{factors}

## Measured on held-out pictures

Ceiling and floor are the best and worst values to expect. Where the meaning does not say otherwise, the ceiling is the
same measure on plain reconstructions (pictures encoded and decoded without an edit), and the floor is chance.

| figure | value | ceiling | floor | meaning |
|---|---|---|---|---|
{figures}

Round trip `|inverse(transform(z)) - z|`: at most {model.round_trip_error:.2e} over held-out latents.

## Origin

- recipe `{origin.recipe}`, seed {origin.seed}, code at commit {origin.git_commit}, exported {origin.created}
- data: {origin.data_set} (sha256 of the data or, for a model of one's own, of its source of pairs:
  {origin.data_set_sha256})
- libraries: {versions}

## Limits

The model is meant for images of {model.image.height}x{model.image.width} pixels like those of the training data. Other
images are interpreted without an error; a log-likelihood below the manifest's quantiles is a sign of them.
"""


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"


def _columns(figure: Figure) -> tuple[str, str, str, str]:
    """Value, ceiling, floor and meaning of a figure; empty where it has none."""
    return _number(figure.value), _number(figure.ceiling), _number(figure.floor), figure.meaning


def model_card(manifest: Manifest) -> str:
    """The card of a bundle, in Markdown."""
    origin = manifest.provenance
    return CARD.format(
        model=manifest,
        origin=origin,
        factors="\n".join(_row(p.name, f"{p.start} to {p.start + p.size - 1}", str(p.size)) for p in manifest.layout),
        figures="\n".join(_row(name, *_columns(figure)) for name, figure in manifest.evaluation.items()),
        versions=", ".join(f"{library} {number}" for library, number in origin.versions.items()),
    )


def _row(*cells: str) -> str:
    """A row of a table. Line ends and bars within a cell would end it, so they become spaces and escaped bars."""
    return "| " + " | ".join(" ".join(cell.splitlines()).replace("|", "\\|") for cell in cells) + " |"


def quality_table(manifest: Manifest) -> Table:
    """The evaluation of `manifest` for the terminal; the model card says what each figure means."""
    sizes = ", ".join(f"{part.name} {part.size}" for part in manifest.layout)
    table = Table(title=f"{manifest.name}: held-out quality ({sizes})", title_justify="left")
    for column in ("figure", "value", "ceiling", "floor"):
        table.add_column(column, justify="left" if column == "figure" else "right", no_wrap=True)
    for name, figure in manifest.evaluation.items():
        table.add_row(name, *_columns(figure)[:3])
    table.add_row("round_trip", f"{manifest.round_trip_error:.1e}", "", "")
    return table


BAR = 20  # characters that a score of 1 takes


def score_table(scores: Mapping[str, float], paper: Mapping[str, float], size: int) -> Table:
    """What a model knows of each concept, as a chart for the terminal.

    `scores` are the reference estimator's, `paper` those of the paper's formula, `size` is D.
    """
    table = Table(title=f"share of the variance of {size} dimensions that each concept explains", title_justify="left")
    for column in ("factor", "share", "", "size", "paper", "size (paper)"):
        table.add_column(column, justify="left" if column in ("factor", "") else "right", no_wrap=True)
    sizes, others = (_sizes(values, size) for values in (scores, paper))
    for name, score in scores.items():
        bar = "" if name == RESIDUAL else "█" * round(BAR * min(max(score, 0), 1)) or "▏"
        shown = "" if name == RESIDUAL else f"{score:.3f}"
        table.add_row(name, shown, bar, sizes.get(name, "-"), f"{paper[name]:.2f}", others.get(name, "-"))
    return table


def _sizes(scores: Mapping[str, float], size: int) -> dict[str, str]:
    """Sizes by name; none where an estimator leaves a concept without a dimension."""
    try:
        return {name: str(count) for name, count in allot_sizes(scores, size).items()}
    except ValueError:
        return {}
