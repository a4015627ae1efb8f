"""What the model is given: stage times by batch, what a call asks for, Serve's autoscaling settings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

__all__ = ["CALLS", "Autoscaling", "Call", "Row", "Stages", "parse_stages", "read_autoscaling", "read_stages"]

# The rows of graphs that a call asks for one after the other, and how many items it brings to each.
Call = tuple[tuple[str, int], ...]
CALLS: dict[str, Call] = {
    "Interpret": (("encoder+transform", 1),),  # one image
    "Edit": (("encoder+transform", 2), ("inverse+decoder", 1)),  # a target and a source; one image back
    "Sample": (("inverse+decoder", 32),),  # one message of a stream
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Graphs that run one after the other on a batch (`GRAPHS_IN_A_ROW` of the service)."""

    ms: Mapping[int, float]
    """Milliseconds of the row by items in the batch, on one core; at least for 1 item."""
    mflop: float = 0.0
    """Millions of floating-point operations for an item, a multiply-add being two."""
    weights_mb: float = 0.0
    """Megabytes of weights, read once a batch."""
    traffic_mb: float = 0.0
    """Megabytes that the graphs' nodes write and read again for an item."""
    nodes: int = 0
    """Nodes of the graphs: on a GPU at least as many kernels are started."""

    def milliseconds(self, batch: int) -> float:
        """Time of a batch: straight lines between the measured ones, the last line prolonged."""
        points = sorted(self.ms.items())
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

    bundle: str
    """Name of the model."""
    machine: str
    """Where it was measured, in words."""
    date: str
    """When."""
    rows: Mapping[str, Row]
    """By name: the graphs' roles joined by +."""
    overhead_ms: float
    """CPU time of a call of one row in the event loop."""
    wake_ms: float
    """CPU time of a turn of the event loop, shared by the calls that it finds to do."""
    spread: float
    """Standard deviation of the logarithm of what a turn takes."""

    def for_call(self, call: Call) -> None:
        """Check that the rows of `call` are there."""
        for name, _ in call:
            if name not in self.rows:
                raise ValueError(
                    f"rows: expected {name!r}, found {', '.join(self.rows) or 'none'}; measure a bundle that has these "
                    "graphs, or plan for another RPC"
                )


@dataclass(frozen=True, kw_only=True)
class Autoscaling:
    """Serve's autoscaling_config of a deployment, and what Serve does not say: how long a replica takes to come."""

    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 2.0
    """Calls under way for each replica that Serve aims at."""
    look_back_period_s: float = 30.0
    """Seconds over which calls under way are averaged."""
    upscale_delay_s: float = 30.0
    """Seconds for which more replicas must be wanted."""
    downscale_delay_s: float = 600.0
    """Seconds for which fewer must be wanted."""
    upscaling_factor: float = 1.0
    """Share of the way to the wanted number that a step up goes."""
    downscaling_factor: float = 1.0
    """The same of a step down."""
    start_s: float = 10.0
    """Seconds until a new replica answers (assumed): some where its pod runs, a minute or two where that must come."""

    def __post_init__(self) -> None:
        """Refuse what Serve would refuse."""
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ValueError(
                f"min_replicas, max_replicas: expected 1 <= min <= max, got {self.min_replicas} and {self.max_replicas}"
            )
        for name in ("target_ongoing_requests", "look_back_period_s", "upscaling_factor", "downscaling_factor"):
            _positive(name, getattr(self, name))
        for name in ("upscale_delay_s", "downscale_delay_s", "start_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected 0 or more seconds, got {getattr(self, name)}")


def read_autoscaling(path: Path, start_s: float = 10.0) -> Autoscaling:
    """The autoscaling_config of the one deployment of a Serve configuration."""
    try:
        (application,) = yaml.safe_load(path.read_text())["applications"]
        (deployment,) = application["deployments"]
        config = deployment["autoscaling_config"]
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: expected one application, one deployment and its autoscaling_config") from error
    known = Autoscaling.__dataclass_fields__
    if unknown := sorted(set(config) - set(known)):
        raise ValueError(f"{path}: autoscaling_config: {', '.join(unknown)}: the model does not know it")
    return Autoscaling(**config, start_s=start_s)


def read_stages(path: Path) -> Stages:
    """Stage times as `measure` writes them.

    Raises:
        ValueError: naming the field that is missing or out of range.

    """
    try:
        found = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a file of stage times; write one with `measure`: {error}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON as `measure` writes it: {error}") from None
    return parse_stages(found, str(path))


def parse_stages(found: Any, source: str) -> Stages:
    """As `read_stages`, of what was in the file `source`."""
    if not isinstance(found, dict) or not isinstance(found.get("rows"), dict) or not found["rows"]:
        raise ValueError(f"{source}: rows: expected an object of rows; write it with `measure`")
    try:
        rows = {name: _row(f"rows.{name}", value) for name, value in found["rows"].items()}
        overhead = _number("overhead_ms", found.get("overhead_ms"))
        wake = _number("wake_ms", found.get("wake_ms"))
        spread = _number("spread", found.get("spread"))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return Stages(
        bundle=str(found.get("bundle", "not stated")),
        machine=str(found.get("machine", "not stated")),
        date=str(found.get("date", "not stated")),
        rows=rows,
        overhead_ms=overhead,
        wake_ms=wake,
        spread=spread,
    )


def _row(field: str, value: Any) -> Row:
    times = value.get("ms") if isinstance(value, dict) else None
    if not isinstance(times, dict) or "1" not in times:
        raise ValueError(f"{field}.ms: expected milliseconds by batch, 1 among them, got {times}")
    ms = {}
    for batch, one in times.items():
        if not batch.isdigit() or batch == "0":
            raise ValueError(f"{field}.ms: expected batches of 1 or more, got {batch!r}")
        ms[int(batch)] = _positive(f"{field}.ms.{batch}", one)
    for (low, before), (high, after) in pairwise(sorted(ms.items())):
        if after < before:
            raise ValueError(
                f"{field}.ms: expected times that do not fall with the batch, got {before} at {low} and {after} at "
                f"{high}; measure again on a quieter machine"
            )
    others = {name: _number(f"{field}.{name}", value.get(name, 0.0)) for name in ("mflop", "weights_mb", "traffic_mb")}
    return Row(ms=ms, nodes=int(_number(f"{field}.nodes", value.get("nodes", 0))), **others)


def _number(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"{field}: expected a number of 0 or more, got {value!r}")
    return float(value)


def _positive(field: str, value: Any) -> float:
    if not _number(field, value):
        raise ValueError(f"{field}: expected more than 0, got {value!r}")
    return float(value)
