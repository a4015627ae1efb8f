"""The figures of a model for people: a Markdown card and a table for the terminal."""

from collections.abc import Mapping
from pathlib import Path

from iin_bundle import Figure, Manifest
from iin_bundle.factors import RESIDUAL
from rich.table import Table

from iin_training.factor_sizes import allot_sizes

__all__ = ["BOUNDS", "LIMITS", "WHAT", "columns", "quality_table", "score_table", "write_model_card"]

WHAT = """An invertible interpretation network: it translates the latent of a frozen model, without loss,
into the factors below. Each factor is meant to be standard normal and independent of the others."""
BOUNDS = """Ceiling and floor are what is best and worst to expect; where the meaning does not say, the same measure on
plain reconstructions, and chance."""
LIMITS = """Images of {image.height}x{image.width} pixels like those of the training data. Whatever else is given is
interpreted all the same; a log-likelihood below the manifest's quantiles is the sign of it."""
CARD = """# {name} (version {version})

{what}

| factor | dimensions | size |
|---|---|---|
{factors}

## Measured on held-out pictures

{bounds}

| figure | value | ceiling | floor | meaning |
|---|---|---|---|---|
{figures}

Round trip `|inverse(transform(z)) - z|`: at most {round_trip:.2e} over held-out latents.

## Origin

- recipe `{recipe}`, seed {seed}, code at commit {commit}, exported {created}
- data: {data_set} (sha256 of it, or of what decides the pairs drawn from it: {data_sha})
- libraries: {versions}

## Limits

{limits}
"""


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1e}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"


def columns(figure: Figure) -> tuple[str, str, str, str]:
    """Value, ceiling, floor and meaning of a figure, for people; empty where it has none."""
    return _number(figure.value), _number(figure.ceiling), _number(figure.floor), figure.meaning


def write_model_card(path: Path, manifest: Manifest) -> None:
    """Write the card of `manifest` to `path`."""
    origin = manifest.provenance
    rows = [_row(name, *columns(figure)) for name, figure in manifest.evaluation.items()]
    factors = [_row(p.name, f"{p.start} to {p.start + p.size - 1}", str(p.size)) for p in manifest.layout]
    card = CARD.format(
        name=manifest.name,
        version=manifest.version,
        factors="\n".join(factors),
        figures="\n".join(rows),
        round_trip=manifest.round_trip_error,
        recipe=origin.recipe,
        seed=origin.seed,
        commit=origin.git_commit,
        created=origin.created,
        data_set=origin.data_set,
        data_sha=origin.data_set_sha256,
        versions=", ".join(f"{library} {number}" for library, number in origin.versions.items()),
        what=WHAT,
        bounds=BOUNDS,
        limits=LIMITS.format(image=manifest.image),
    )
    path.write_text(card, encoding="utf-8")


def _row(*cells: str) -> str:
    """A row of a table: what would end a cell in a name or a meaning does not."""
    return "| " + " | ".join(" ".join(cell.splitlines()).replace("|", "\\|") for cell in cells) + " |"


def quality_table(manifest: Manifest) -> Table:
    """The evaluation of `manifest` for the terminal; the model card says what each figure means."""
    sizes = ", ".join(f"{part.name} {part.size}" for part in manifest.layout)
    table = Table(title=f"{manifest.name}: held-out quality ({sizes})", title_justify="left")
    for column in ("figure", "value", "ceiling", "floor"):
        table.add_column(column, justify="left" if column == "figure" else "right", no_wrap=True)
    for name, figure in manifest.evaluation.items():
        table.add_row(name, *columns(figure)[:3])
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
