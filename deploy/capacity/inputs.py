"""What the model is given: stage times by batch, and what a call asks for."""

import reprlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

__all__ = ["CALLS", "Call", "Count", "NotNegative", "Positive", "Row", "Stages", "read_stages", "what_is_wrong"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
# The rows of graphs that a call asks for one after the other, and how many items it brings to each.
Call = tuple[tuple[str, int], ...]
CALLS: dict[str, Call] = {
    "Interpret": (("encoder+transform", 1),),  # one image
    "Edit": (("encoder+transform", 2), ("inverse+decoder", 1)),  # a target and a source; one image back
    "Sample": (("inverse+decoder", 32),),  # one message of a stream
}


def what_is_wrong(error: ValidationError) -> str:
    """What pydantic found, in one line: each field, what was expected, what was given."""
    lines = []
    for one in error.errors():
        field, message = ".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")
        given = "" if one["type"] == "missing" else f", got {reprlib.repr(one['input'])}"
        lines.append(f"{field}: {message}{given}" if field else message)
    return "; ".join(lines)


def _rising(ms: dict[int, float]) -> dict[int, float]:
    """Times of batches in the order of their sizes."""
    ordered = dict(sorted(ms.items()))
    if 1 not in ordered:
        raise ValueError("expected milliseconds by batch, 1 among them")
    if list(ordered.values()) != sorted(ordered.values()):
        raise ValueError("expected times that do not fall as the batch grows; measure again on a quieter machine")
    return ordered


@dataclass(frozen=True, kw_only=True)
class Row:
    """Graphs that run one after the other on a batch (`GRAPHS_IN_A_ROW` of the service)."""

    ms: Annotated[dict[Count, Positive], AfterValidator(_rising)]
    """Milliseconds of the row by items in the batch, on one core; at least for 1 item."""
    mflop: NotNegative = 0.0
    """Millions of floating-point operations for an item, a multiply-add being two."""
    weights_mb: NotNegative = 0.0
    """Megabytes of weights, read once a batch."""
    traffic_mb: NotNegative = 0.0
    """Megabytes that the graphs' nodes write and read again for an item."""
    nodes: Annotated[int, Field(ge=0)] = 0
    """Nodes of the graphs: on a GPU at least as many kernels are started."""

    def milliseconds(self, batch: int) -> float:
        """Time of a batch: straight lines between the measured ones, the last line prolonged."""
        points = list(self.ms.items())
        if len(points) == 1 or batch <= points[0][0]:
            return points[0][1]
        (low, start), (high, end) = next((line for line in pairwise(points) if batch <= line[1][0]), tuple(points[-2:]))
        return start + (end - start) * (batch - low) / (high - low)

    def larger(self, times: float) -> "Row":
        """The row of a model `times` as large in arithmetic, weights and traffic, with as many nodes."""
        return replace(
            self,
            ms={batch: times * one for batch, one in self.ms.items()},
            mflop=times * self.mflop,
            weights_mb=times * self.weights_mb,
            traffic_mb=times * self.traffic_mb,
        )


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Rows of one bundle on one machine, and what a call costs beside them."""

    bundle: str = "not stated"
    """Name of the model."""
    date: str = "not stated"
    """When it was measured."""
    rows: Annotated[dict[str, Row], Field(min_length=1)]
    """By name: the graphs' roles joined by +."""
    overhead_ms: NotNegative
    """CPU time of a call of one row in the event loop."""
    wake_ms: NotNegative
    """CPU time of a turn of the event loop, shared by the calls that it finds to do."""
    spread: NotNegative
    """Standard deviation of the logarithm of what a turn takes."""

    def for_call(self, call: Call) -> None:
        """Check that the rows of `call` are there."""
        for name, _ in call:
            if name not in self.rows:
                raise ValueError(
                    f"rows: expected {name!r}, found {', '.join(self.rows)}; measure a bundle that has these "
                    "graphs, or plan for another RPC"
                )


def read_stages(path: Path) -> Stages:
    """Stage times as `measure` writes them.

    Raises:
        ValueError: naming the field that is missing or out of range.

    """
    try:
        return TypeAdapter(Stages).validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        raise ValueError(f"{path}: expected a file of stage times; write one with `measure`: {error}") from None
    except ValidationError as error:
        raise ValueError(f"{path}: expected stage times as `measure` writes them: {what_is_wrong(error)}") from None
