"""Benchmark: throughput, latency and memory of `iin-serve` beside other servers with the same graphs.

    .venv/bin/python -m tests.bench.run BUNDLE                           about 8 minutes
    .venv/bin/python -m tests.bench.run BUNDLE --seconds 0.5 --rounds 1  to try the harness
    .venv/bin/python -m tests.bench.run BUNDLE --parts rpcs --rpcs Interpret --callers 64 --rounds 7
    .venv/bin/python -m tests.bench.run BUNDLE --parts peers --peers triton --rates 100 300
    .venv/bin/python -m tests.bench.run INT8_BUNDLE --others FLOAT32_BUNDLE --parts peers   what int8 brings

The servers (`servers`): `iin-serve`; a bare grpc.aio server written by hand (`bare_server`); Triton and MLServer
with a callable that runs the same two graphs (`triton_server`, `mlserver_server`), each in a virtual environment
that `peers` makes in build/bench. One that cannot be had is left out, with a line that says why.

The parts (`cases`):
    rpcs        each RPC alone: one image for Interpret, target and source for Edit, `--samples` images for Sample,
                all as PNG files; ours and the bare server
    mixed       16 callers of Interpret, 8 of Edit and 8 of Sample together; ours and the bare server
    starvation  8 callers of Interpret, alone and beside one caller that streams 1,000 samples after another
    peers       Interpret of one image as float32 numbers, which is what all servers take; ours adds likelihood and
                quantile to the answer, the bare server too, the peers return the log-determinant
    replicas    Interpret of 64 callers and Sample of 16, one replica of ours and two; shows something where each has a
                core, the callers have another, and HAProxy and Ray a share of one
    --rates     the same calls at random times (Poisson), however many are under way

All servers run from beginning to end, and every case is measured in rounds, the servers in turn, so that a machine
that gets slower or busier favours none. One process sends the load (`load`). Before anything is measured the answers
are compared. What is printed (`report`) are medians over the rounds; read the ratios, which depend least on the
machine, and where others use it at the same time the CPU time for a call.

Exit code: 0 measured, 1 a call failed, the answers differ or a server of ours did not start, 130 interrupted.
"""

import argparse
import json
import multiprocessing
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
from iin_bundle import Bundle, BundleError, read_bundle
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.bench import load, report
from tests.bench.cases import PARTS, RPCS, STREAM_SAMPLES, Case, make_cases
from tests.bench.requests import (
    OTHER_EXPORT,
    SAME_GRAPHS,
    Requests,
    compare_peer,
    compare_servers,
    make_requests,
)
from tests.bench.servers import BARE, OURS, PEERS, TWO, Server

CALLERS = (1, 16, 64)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    others = (BARE, *PEERS)
    parser.add_argument("bundle", type=Path, help="bundle directory; its model needs a decoder")
    parser.add_argument(
        "--others",
        type=Path,
        metavar="BUNDLE",
        help="what the other servers serve: another export of the same model (default: the same bundle)",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument("--peers", nargs="+", choices=others, default=others, help="servers beside ours (default: all)")
    parser.add_argument("--rpcs", nargs="+", choices=RPCS, default=RPCS, help="for the part rpcs (default: all)")
    parser.add_argument(
        "--callers", nargs="+", type=int, default=CALLERS, help="callers at once, for rpcs and peers (default: 1 16 64)"
    )
    parser.add_argument("--rates", nargs="+", type=float, default=(), help="arrivals a second (default: none)")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured time of a round at least (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each server (default: 3)")
    parser.add_argument("--samples", type=int, default=32, help="images of a Sample call (default: 32)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE as well")
    given = parser.parse_args()
    if min(given.seconds, *given.rates, 1.0) <= 0 or min(given.rounds, given.samples, *given.callers) < 1:
        parser.error("--seconds, --rounds, --samples, --callers, --rates: expected positive numbers")
    return given


def start(
    names: Sequence[str],
    bundle: Bundle,
    others: Bundle,
    requests: Requests,
    stack: ExitStack,
    about: dict[str, Any],
) -> dict[str, Server]:
    """Start the servers, ours with `bundle`, and compare their answers; what was found goes into `about`."""
    servers: dict[str, Server] = {}
    tolerance = SAME_GRAPHS if bundle.directory == others.directory else OTHER_EXPORT
    about["answers"], about["left out"] = {}, {}
    for name in names:
        print(f"starting {name} ...", file=sys.stderr, flush=True)
        try:
            server = stack.enter_context(Server(name, bundle if name in (OURS, TWO) else others))
            if name in (BARE, TWO):
                about["answers"][name] = compare_servers(servers[OURS].address, server.address, requests, tolerance)
            elif name in PEERS:
                about["answers"][name] = compare_peer(servers[OURS].address, server.address, requests, tolerance)
        except (RuntimeError, OSError, grpc.RpcError) as error:
            if name not in PEERS:
                raise
            about["left out"][name] = reason = _one_line(error)
            print(f"bench: {name} is left out: {reason}", file=sys.stderr, flush=True)
        else:
            servers[name] = server
    return servers


def _one_line(error: Exception) -> str:
    """The last line that tells of an error, or else the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in reversed(lines) if "error" in line.lower()), lines[-1])


def measure(cases: Sequence[Case], servers: dict[str, Server], given: argparse.Namespace) -> list[report.Cell]:
    """Every case, in rounds; progress is shown on standard error."""
    cells: list[report.Cell] = []
    progress = Progress(
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=Console(stderr=True),
    )
    worker = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), load.start_worker)
    with worker, progress:
        loads = sum(len(loads) for case in cases for loads in case.loads.values())
        task = progress.add_task("", total=loads * given.rounds)
        for case in cases:
            rounds: list[dict[str, dict[str, load.Result]]] = []
            for number in range(given.rounds):
                rounds.append({name: {} for name in case.loads})
                for name, jobs in case.loads.items():
                    for calls in jobs:
                        kinds = " and ".join(f"{one.name} ({one.load})" for one in calls)
                        progress.update(task, description=f"{kinds}, {name}")
                        job = load.Load(
                            address=servers[name].address,
                            calls=calls,
                            seconds=given.seconds,
                            pids=servers[name].pids(),
                            seed=number,  # the same for all servers
                        )
                        rounds[-1][name] |= worker.submit(load.measure, job).result()
                        progress.advance(task)
            cells += [
                report.Cell(
                    part=case.part,
                    call=kind.name,
                    load=kind.load,
                    rounds=[{name: results[kind.name] for name, results in one.items()} for one in rounds],
                )
                for calls in case.loads[OURS]
                for kind in calls
            ]
    return cells


def main() -> int:
    given = arguments()
    about = report.machine()
    try:
        bundle = read_bundle(given.bundle)
        others = read_bundle(given.others or given.bundle)
        if "decoder" not in bundle.manifest.graphs:
            raise RuntimeError(f"{given.bundle}: expected a bundle with a decoder, which Edit and Sample need")
        requests = make_requests(bundle, samples=given.samples, stream_samples=STREAM_SAMPLES)
        used = "peers" in given.parts or given.rates
        names = [OURS, *(name for name in given.peers if name == BARE or used)]
        names += [TWO] if "replicas" in given.parts else []
        with ExitStack() as stack:
            servers = start(names, bundle, others, requests, stack, about)
            about["nice"] = {name: server.serving().nice() for name, server in servers.items()}
            cells = measure(make_cases(given, requests, list(servers)), servers, given)
            memory = {name: server.memory() for name, server in servers.items()}
            print("stopping ...", file=sys.stderr, flush=True)
    except (BundleError, RuntimeError, grpc.RpcError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    report.show(cells, memory, about, given.bundle)
    if given.json is not None:
        results = report.as_json(cells, memory, about, given.bundle)
        given.json.write_text(json.dumps(results, indent=2) + "\n")
    errors = [text for cell in cells for text in cell.errors]
    for text in errors:
        print(f"bench: {text}", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
