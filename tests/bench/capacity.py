"""The capacity model beside the service: what it predicts, what is measured, and how far they are apart.

    .venv/bin/python -m tests.bench.capacity BUNDLE                     about 4 minutes
    .venv/bin/python -m tests.bench.capacity BUNDLE --seconds 1 --rounds 1 --write ''   to try it

Measures the stage times of BUNDLE on one core (deploy.capacity), then starts `iin-serve BUNDLE` with one replica and
sends single-image Interprets: 1, 16 and 64 callers that wait for their answers, and calls at random moments at 30, 60
and 80 % of the most that was measured. Rounds take turns; medians are kept. Three constants of the model are fitted,
each on one number: the event loop's CPU time of a call so that the throughput of 64 callers comes out, that of one of
its turns so that a lone caller's median does, and the spread of turns so that a lone caller's p99 does. All else is
predicted.

CPU is that of all of the service's processes and of the client, a call, and the model's (event loop and graphs); others
is what else ran meanwhile, in cores. Stage times and constants go to --write, from where `python -m deploy.capacity`
plans with them.

Exit code: 0 measured, 1 a call failed or the server did not start, 2 wrong usage, 130 interrupted.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from iin_bundle import BundleError, read_bundle
from rich.console import Console

from deploy.capacity.arrivals import Closed, Poisson
from deploy.capacity.inputs import CALLS, Row
from deploy.capacity.measure import measure as measure_stages
from deploy.capacity.model import Result, Scenario, simulate
from tests.bench import load
from tests.bench.requests import make_requests
from tests.bench.servers import OURS, Server

CALLERS = (1, 16, 64)
SHARES = (0.3, 0.6, 0.8)
STAGES = Path("deploy/capacity/stages.json")
SIMULATED_S, FITTED_S, WARM_UP_S = 150.0, 20.0, 2.0
NAME, METHOD = "Interpret", "/iin_api.v1.InterpretationService/Interpret"

Kind = Closed | Poisson


@dataclass(frozen=True)
class Point:
    """One load, measured once."""

    result: load.Result
    client_ms: float
    """CPU time of a call in the client."""
    others: float
    """Cores that other work kept busy."""


@dataclass(frozen=True)
class Constants:
    """What is fitted."""

    overhead_ms: float
    """CPU time of a call in the event loop."""
    wake_ms: float
    """CPU time of a turn of the event loop."""
    spread: float
    """Standard deviation of the logarithm of what a turn takes."""


def main() -> int:
    """Read the command line, measure, compare."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.capacity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, help="bundle directory; its model needs a decoder")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured time of a point and round (default: 5)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--write", type=Path, default=STAGES, help=f"file for the stage times (default: {STAGES})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured to FILE as well")
    given = parser.parse_args()
    if given.seconds <= 0 or given.rounds < 1:
        parser.error("--seconds, --rounds: expected positive numbers")
    console = Console(stderr=True)
    try:
        with console.status("measuring stage times") as status:
            stages = measure_stages(given.bundle, rounds=given.rounds, seconds=0.3, progress=status.update)
            measured = measure_service(given, status.update)
            status.update("fitting the constants")
            compare(stages, measured, given)
    except (BundleError, RuntimeError, ValueError) as error:
        print(f"capacity: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    errors = {text for points in measured.values() for point in points for text in point.result.errors}
    for text in errors:
        print(f"capacity: {text}", file=sys.stderr)
    return 1 if errors else 0


def measure_service(given: argparse.Namespace, progress: Callable[[str], None]) -> dict[Kind, list[Point]]:
    """Every load, in rounds."""
    bundle = read_bundle(given.bundle)
    requests = make_requests(bundle, samples=1, stream_samples=1).serialised("interpret")
    progress("starting iin-serve")
    points: dict[Kind, list[Point]] = {}
    worker = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), load.start_worker)
    with Server(OURS, bundle) as server, worker:
        client = psutil.Process(worker.submit(os.getpid).result())

        def measure(kind: Kind, seconds: float, seed: int) -> Point:
            crowd, rate = (kind.callers, 0.0) if isinstance(kind, Closed) else (1, kind.rate)
            calls = load.Calls(name=NAME, method=METHOD, requests=requests, callers=crowd, rate=rate)
            job = load.Load(address=server.address, calls=(calls,), seconds=seconds, pids=server.pids(), seed=seed)
            return observed(lambda: worker.submit(load.measure, job).result()[NAME], client)

        measure(Closed(64), min(given.seconds, 2.0), 0)  # warms up
        most = max(measure(Closed(64), given.seconds, 0).result.throughput for _ in range(2))
        kinds: list[Kind] = [
            *(Closed(callers) for callers in CALLERS),
            *(Poisson(round(share * most)) for share in SHARES),
        ]
        for one in range(given.rounds):
            for kind in kinds:
                progress(f"round {one + 1} of {given.rounds}: {kind}")
                points.setdefault(kind, []).append(measure(kind, given.seconds, one))
        progress("stopping iin-serve")
    return points


def observed(run: Callable[[], load.Result], client: psutil.Process) -> Point:
    """One measurement, with the CPU time that everyone took meanwhile."""
    before, started = cpu_seconds(client), time.perf_counter()
    result = run()
    elapsed = time.perf_counter() - started
    total, own = (after - earlier for after, earlier in zip(cpu_seconds(client), before, strict=True))
    calls = result.throughput * elapsed
    others = total - own - result.cpu_ms / 1e3 * calls
    return Point(result, 1e3 * own / calls, max(others, 0.0) / elapsed)


def cpu_seconds(client: psutil.Process) -> tuple[float, float]:
    """CPU time so far: of the machine, of the client."""
    whole = psutil.cpu_times()
    idle = whole.idle + getattr(whole, "iowait", 0.0) + getattr(whole, "guest", 0.0)
    return sum(whole) - idle, sum(client.cpu_times()[:2])


def predicted(rows: dict[str, Row], constants: Constants, kind: Kind, seconds: float = SIMULATED_S) -> Result:
    """What the model says of one replica here; its event loop and its graphs have a core each, if there are two."""
    return simulate(
        Scenario(
            rows=rows,
            call=CALLS["Interpret"],
            overhead_ms=constants.overhead_ms,
            wake_ms=constants.wake_ms,
            spread=constants.spread,
            arrivals=kind,
            cores=min(os.cpu_count() or 1, 2),
            seconds=seconds,
            warm_up_s=WARM_UP_S,
        )
    )


def fitted(rows: dict[str, Row], crowd: float, p50_ms: float, p99_ms: float) -> Constants:
    """The constants at which 64 callers get `crowd` calls a second, and one waits as long as `p50_ms` and `p99_ms`."""
    graphs_ms = sum(rows[name].milliseconds(items) for name, items in CALLS["Interpret"])
    turn_ms, spread = of_a_lone_call(graphs_ms, p50_ms, p99_ms)

    def with_overhead(overhead_ms: float) -> Constants:
        return Constants(overhead_ms, max(turn_ms - overhead_ms / 2, 0.0), spread)

    def answers(overhead_ms: float) -> float:
        return predicted(rows, with_overhead(overhead_ms), Closed(64), FITTED_S).throughput

    return with_overhead(where(min(1e3 / crowd, 2 * turn_ms), lambda overhead_ms: answers(overhead_ms) > crowd))


def of_a_lone_call(graphs_ms: float, p50_ms: float, p99_ms: float) -> tuple[float, float]:
    """The mean of a turn, ms, and the spread at which two turns and the graphs have this median and 99th percentile."""
    normal = np.random.default_rng(0).standard_normal((2, 20_000))

    def latency(share: float, turn_ms: float, spread: float) -> float:
        turns = turn_ms * np.exp(spread * normal - spread**2 / 2).sum(axis=0)
        return float(np.percentile(turns, share)) + graphs_ms

    def turn(spread: float) -> float:
        return where(p50_ms, lambda turn_ms: latency(50, turn_ms, spread) < p50_ms)

    spread = where(1.0, lambda one: latency(99, turn(one), one) < p99_ms)
    return turn(spread), spread


def where(high: float, below: Callable[[float], bool]) -> float:
    """The number between 0 and `high` up to which `below` holds; ValueError where it holds everywhere, or nowhere."""
    low, most = 0.0, high
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    if low == 0.0 or high == most:
        raise ValueError(f"no constant between 0 and {most:.3g} gives what was measured; measure again on idle cores")
    return round((low + high) / 2, 3)


def compare(stages: dict[str, Any], measured: dict[Kind, list[Point]], given: argparse.Namespace) -> None:
    """Write what was measured (first, in case no constants fit) and the stage times; print the tables."""

    def median(kind: Kind, of: Callable[[Point], float]) -> float:
        return statistics.median(of(point) for point in measured[kind])

    if given.json:
        points = [
            {
                "callers": getattr(kind, "callers", None),
                "rate": getattr(kind, "rate", None),
                "rounds": [asdict(point) for point in found],
            }
            for kind, found in measured.items()
        ]
        given.json.write_text(json.dumps({"stages": stages, "points": points}, indent=2) + "\n")
    rows = {name: Row(**row) for name, row in stages["rows"].items()}
    constants = fitted(
        rows,
        median(Closed(64), lambda one: one.result.throughput),
        median(Closed(1), lambda one: one.result.p50_ms),
        median(Closed(1), lambda one: one.result.p99_ms),
    )
    stages |= {name: round(value, 3) for name, value in asdict(constants).items()}
    if given.write.name:
        given.write.write_text(json.dumps(stages, indent=2) + "\n")
    print("\n" + ", ".join(f"{name} {value:.3f}" for name, value in asdict(constants).items()) + "\n")
    print("| load | calls/s | model | error | p50, ms | model | error | p99, ms | model | error ", end="")
    print("| CPU, ms | model | client | others |")
    print("|---" * 14 + "|")
    for kind in measured:
        found = predicted(rows, constants, kind)
        cells = [f"{kind.callers} callers" if isinstance(kind, Closed) else f"{kind.rate:g}/s at random"]
        for value, said in (
            (median(kind, lambda one: one.result.throughput), found.throughput),
            (median(kind, lambda one: one.result.p50_ms), found.percentile(50)),
            (median(kind, lambda one: one.result.p99_ms), found.percentile(99)),
        ):
            cells += [f"{value:.4g}", f"{said:.4g}", f"{said / value - 1:+.0%}"]
        cells += [f"{median(kind, lambda one: one.result.cpu_ms):.2f}", f"{found.loop_ms + found.graphs_ms:.2f}"]
        cells += [f"{median(kind, lambda one: one.client_ms):.2f}", f"{median(kind, lambda one: one.others):.1f}"]
        print("|", " | ".join(cells), "|")
    loads = " ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"\n{stages['date']}, {stages['machine']}, {os.cpu_count()} cores; load average now {loads}")


if __name__ == "__main__":
    sys.exit(main())
