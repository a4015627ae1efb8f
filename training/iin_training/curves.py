"""The metrics of a run, and a picture of them."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

__all__ = ["draw_curves", "read_metrics"]


def read_metrics(metrics: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics file (stage, step, time in seconds, values), without one that was cut short.

    Raises:
        ValueError: where a whole line is something else.

    """
    lines = metrics.read_bytes().split(b"\n")[:-1] if metrics.exists() else []
    return [_record(line, f"{metrics}: line {number}") for number, line in enumerate(lines, start=1)]


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draw every value in a run's metrics file over its steps, one row a stage, into the PNG file `picture`.

    Where nothing was written, nothing is drawn.
    """
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for record in read_metrics(metrics):
        stage, step = record.pop("stage"), record.pop("step")
        for name, value in record.items():
            if name != "time":
                curves.setdefault(stage, {}).setdefault(name, []).append((step, value))
    if not curves:
        return
    columns = max(len(names) for names in curves.values())
    figure = Figure(figsize=(4 * columns, 2.6 * len(curves)), layout="constrained")
    axes = figure.subplots(len(curves), columns, squeeze=False)
    for row, (stage, names) in zip(axes, curves.items(), strict=True):
        for axis in row[len(names) :]:
            axis.set_visible(False)
        for axis, (name, points) in zip(row, names.items(), strict=False):
            axis.plot(*zip(*points, strict=True), linewidth=1)
            axis.set_title(f"{stage}: {name}")
            axis.set_xlabel("step")
            axis.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


def _record(line: bytes, where: str) -> dict[str, Any]:
    """One line of metrics, checked."""
    try:
        record: dict[str, Any] = json.loads(line)
        values = [record[name] for name in ("step", "time")] + [record[name] for name in record if name != "stage"]
        if isinstance(record["stage"], str) and all(isinstance(value, int | float) for value in values):
            return record
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(
        f"{where}: expected a JSON object with a stage's name, step, time and other numbers, got "
        f"{line[:60].decode(errors='replace')!r}; remove this line: only points of curves and minutes are lost with it"
    )
