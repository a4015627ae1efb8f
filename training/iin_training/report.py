"""A report on a run or a bundle from its directory alone: stages, times, factor sizes, figures, pictures."""

from collections.abc import Callable, Sequence
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
from iin_training.report_page import write_page
from iin_training.run import SETTINGS

__all__ = ["show_report"]

DRAWN = {"pictures.png": "What T makes of held-out pictures", "curves.png": "Measured while training"}
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
    """Print the figures of the run or the bundle in `directory`, and write them as a page of HTML with pictures.

    For a run it also prints how far it got and draws its `curves.png` anew; the page is `report.html` in `directory`.
    The page of a bundle is beside it, `BUNDLE.html`, so that the bundle stays as it was checked. A `console` made with
    `markup=False, emoji=False` shows names and paths as they are.

    Raises:
        ValueError: where `directory` is neither that of a run nor a bundle.
        BundleError: where a bundle is not whole.
        OSError: where the page of a bundle cannot be written.

    """
    if (directory / "manifest.json").is_file():
        whole = directory.resolve()
        page, bundle = whole.with_name(whole.name + ".html"), read_bundle(directory)
        console.print(quality_table(bundle.manifest), soft_wrap=False)
        write_page(page, title=bundle.manifest.name, bundle=bundle)
        console.print(f"page: {page}")
    else:
        _show_run(directory, console)


def _show_run(directory: Path, console: Console) -> None:
    metrics, page = directory / "metrics.jsonl", directory / "report.html"
    stages = _stages(directory)
    if not stages:
        raise ValueError(
            f"RUN_DIR: expected the directory of a run that has begun to train, or a bundle, got {directory}, which "
            "has neither metrics nor a manifest; give what --run-dir named, or build/RECIPE"
        )
    _try(lambda: draw_curves(metrics, directory / "curves.png"), "curves.png was not drawn", console)
    rows = [(stage.name, str(stage.step), str(stage.steps or "?"), f"{stage.seconds / 60:.1f}") for stage in stages]
    table = Table(title="stages of training", title_justify="left")
    for column in ("stage", "updates", "of", "minutes"):
        table.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table, soft_wrap=False)
    bundle = read_bundle(directory / "bundle") if (directory / "bundle").is_dir() else None
    state = _state(directory, stages)
    if bundle is not None:
        console.print(quality_table(bundle.manifest), soft_wrap=False)
        console.print(f"meanings: {bundle.directory / 'MODEL_CARD.md'}")
    else:
        sizes = next((stage.settings["factors"] for stage in stages if "factors" in stage.settings), dict[str, int]())
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        console.print(f"factor sizes: {told or 'not known yet'}")
    drawn = {heading: directory / name for name, heading in DRAWN.items() if (directory / name).is_file()}
    title = directory.resolve().name
    written = _try(
        lambda: write_page(page, title=title, bundle=bundle, drawn=drawn, stages=rows, state=state),
        f"{page.name} was not written",
        console,
    )
    if written:
        console.print(f"page: {page}")
    console.print(f"drawn: {', '.join(sorted(map(str, drawn.values()))) or 'nothing'}")
    console.print(state)


def _try(write: Callable[[], None], otherwise: str, console: Console) -> bool:
    """Call `write`; returns whether it could write. A finished run may be kept where nothing can be written."""
    try:
        write()
    except OSError as error:
        console.print(f"warning: {otherwise}: {error}", highlight=False)
        return False
    return True


def _state(directory: Path, stages: Sequence[Stage]) -> str:
    """Where the run is, in a line."""
    exported = (directory / "bundle").is_dir()
    if exported and (directory / SETTINGS).is_file():  # stages left unfinished belong to other settings
        return f"finished: iin-serve {directory / 'bundle'}"
    bundle = "the bundle may be an earlier one" if exported else "no bundle yet"
    for stage in stages:
        if stage.steps is None or stage.step < stage.steps:
            where = f"update {stage.step} of {stage.steps or '?'}, {bundle}"
            return f"reached: {stage.name}, {where}; the same iin-train run goes on from update {stage.kept}"
    return f"reached: the end of {stages[-1].name}, {bundle}; the same iin-train run goes on"


def _stages(directory: Path) -> list[Stage]:
    """The stages that wrote metrics, in the order in which they began."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in read_metrics(directory / "metrics.jsonl"):
        lines.setdefault(line["stage"], []).append(line)
    return [_stage(directory, name, of_stage) for name, of_stage in lines.items()]


def _stage(directory: Path, name: str, lines: Sequence[dict[str, Any]]) -> Stage:
    saved = read_pointer(directory / "checkpoints" / name)
    kept, settings = (saved["step"], saved["settings"]) if saved else (0, {})
    step = max(kept, lines[-1]["step"] + 1)
    taken = np.diff([line["time"] for line in lines])
    usual = float(np.median(taken)) if len(taken) else 0.0
    seconds = float(taken[taken <= PAUSE * usual].sum())
    return Stage(name, step, kept, settings.get("optimiser", {}).get("steps"), seconds, settings)
