"""What a run has come to so far, told from its directory alone: stages, times, factor sizes, figures, curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from iin_bundle import read_bundle
from rich.console import Console
from rich.table import Table

from iin_training.checkpoint import read_pointer
from iin_training.curves import draw_curves, read_metrics
from iin_training.model_card import quality_table

__all__ = ["show_report"]

PAUSE = 10  # times the usual time between two lines of the metrics: what is longer was an interruption


@dataclass(frozen=True)
class Stage:
    """What is known of one stage of training."""

    name: str
    step: int
    """Updates made, as far as it was written down."""
    kept: int
    """Updates in its checkpoint."""
    steps: int | None
    """Updates that it takes; None before its first checkpoint."""
    seconds: float
    """Time spent on them, interruptions left out."""
    settings: dict[str, Any]
    """Of its checkpoint."""


def show_report(directory: Path, console: Console) -> None:
    """Print how far the run in `directory` got and what it is worth, and draw its `curves.png` anew.

    Raises:
        ValueError: where `directory` is not that of a run.

    """
    metrics = directory / "metrics.jsonl"
    stages = _stages(directory)
    if not stages:
        raise ValueError(
            f"RUN_DIR: expected the directory of a run that has begun to train, got {directory}, which has no metrics; "
            "give what --run-dir named, or build/RECIPE"
        )
    try:
        draw_curves(metrics, directory / "curves.png")
    except OSError as error:  # a finished run may be kept where nothing can be written
        console.print(f"warning: curves.png was not drawn: {error}", soft_wrap=True, markup=False, highlight=False)
    table = Table(title="stages of training", title_justify="left")
    for column in ("stage", "updates", "of", "minutes"):
        table.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True)
    for stage in stages:
        table.add_row(stage.name, str(stage.step), str(stage.steps or "?"), f"{stage.seconds / 60:.1f}")
    console.print(table)
    drawn = [directory / name for name in ("curves.png", "pictures.png") if (directory / name).is_file()]
    if (directory / "bundle").is_dir():
        bundle = read_bundle(directory / "bundle")
        console.print(quality_table(bundle.manifest))
        console.print(f"meanings: {bundle.directory / 'MODEL_CARD.md'}", soft_wrap=True, markup=False)
    else:
        sizes = [stage.settings["factors"] for stage in stages if "factors" in stage.settings]
        told = ", ".join(f"{name} {size}" for part in sizes for name, size in part.items())
        console.print(f"factor sizes: {told or 'not known yet'}", markup=False)
    console.print(f"drawn: {', '.join(map(str, drawn)) or 'nothing'}", soft_wrap=True, markup=False)
    console.print(_state(directory, stages), soft_wrap=True, markup=False)


def _state(directory: Path, stages: Sequence[Stage]) -> str:
    """Where the run is, in a line."""
    for stage in stages:
        if stage.steps is None or stage.step < stage.steps:
            where = f"update {stage.step} of {stage.steps or '?'}"
            return f"reached: {stage.name}, {where}; the same iin-train run goes on from update {stage.kept}"
    if not (directory / "bundle").is_dir():
        return f"reached: the end of {stages[-1].name}, no bundle yet; the same iin-train run goes on"
    if not (directory / "settings.json").is_file():  # written last
        return "reached: an export; the same iin-train run goes on"
    return f"finished: iin-serve {directory / 'bundle'}"


def _stages(directory: Path) -> list[Stage]:
    """The stages that wrote metrics, in the order in which they began."""
    lines = read_metrics(directory / "metrics.jsonl")
    return [_stage(directory, name, [line for line in lines if line["stage"] == name]) for name in _names(lines)]


def _names(lines: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(line["stage"] for line in lines))


def _stage(directory: Path, name: str, lines: Sequence[dict[str, Any]]) -> Stage:
    saved = read_pointer(directory / "checkpoints" / name)
    kept, settings = (saved["step"], saved["settings"]) if saved else (0, {})
    step = max(kept, lines[-1]["step"] + 1)
    taken = np.diff([line["time"] for line in lines])
    usual = float(np.median(taken)) if len(taken) else 0.0
    seconds = float(taken[taken <= PAUSE * usual].sum())
    return Stage(name, step, kept, settings.get("optimiser", {}).get("steps"), seconds, settings)
