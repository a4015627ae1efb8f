"""Benchmark: one training step of T at the paper's size, beside the same network in zuko and in FrEIA.

    .venv/bin/python -m tests.bench.method                        about 4 minutes on 2 cores
    .venv/bin/python -m tests.bench.method --rounds 1 --batch 25  to try it
    .venv/bin/python -m tests.bench.method --json speed.json

A step is what training does with a batch of pair latents, (2 x batch, 64): forward, the pair loss, backward, the
gradient's norm limited, Adam. All contenders have the same couplings, sizes and number of weights (`method_nets`), the
same loss and float32, and keep freed memory as our training does; the others clip with torch's own function. Each is
there with torch's Adam as it comes (`Adam`) and with its fastest form (`fused`), which ours takes. `bfloat16` is the
fastest form with products under autocast, as `--transform.precision bfloat16` trains ours; the loss shows what that
costs. Every contender has a process of its own, for its memory, and they take turns, so that a machine that gets slower
or busier favours none: read medians and ratios. The share of the peak is the time that the step's products would take
at the fastest rate measured of a product of matrices, over the time of the step.

Exit code: 0 measured, 1 a contender failed or has another number of weights.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from iin_training.losses import pair_nll
from iin_training.memory import keep_freed
from iin_training.optimising import update
from rich.console import Console
from rich.table import Table

SIZE, BLOCKS, HIDDEN, DEPTH = 64, 12, 512, 3  # the paper's
PARAMETERS = 26_815_488
SIZES = (31, 22, 11)  # residual and two factors
CONTENDERS = {
    "iin": ("iin", "fused"),
    "iin, bfloat16": ("iin", "fused"),
    "zuko, fused": ("zuko", "fused"),
    "FrEIA, fused": ("FrEIA", "fused"),
    "zuko, bfloat16": ("zuko", "fused"),
    "FrEIA, bfloat16": ("FrEIA", "fused"),
    "zuko, Adam": ("zuko", "plain"),
    "FrEIA, Adam": ("FrEIA", "plain"),
}
OURS = ("iin", "iin, bfloat16")
PEERS = {"fused": ("zuko, fused", "FrEIA, fused"), "bfloat16": ("zuko, bfloat16", "FrEIA, bfloat16")}
FIRST_STEPS = 10  # not measured
LIBRARIES = ("torch", "zuko", "FrEIA")


@dataclass(frozen=True)
class Result:
    """What was measured of one contender with one size of batch."""

    contender: str
    device: str
    batch: int
    seconds: float
    """Median time of a step."""
    pairs_per_second: float
    ratio: float
    """Pairs a second of ours over those of this contender: median over the rounds."""
    peak_share: float
    """Of the fastest matrix product measured."""
    memory: int
    """Highest memory, bytes: resident (CPU, libraries included) or allocated (GPU)."""
    cpu_seconds: float
    """Median processor time of a step, all threads together."""
    loss: float
    """Mean loss of the first ten steps, nats: the same draws for all."""


def contend(name: str, batch: int, device: str, threads: int, pipe: Connection) -> None:
    """Build a contender and make as many steps as `pipe` asks for, until it asks for none."""
    from tests.bench.method_nets import BUILD  # here, so that the others' libraries are in no other process

    torch.set_num_threads(threads)
    library, adam = CONTENDERS[name]
    keep_freed()
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    module, net = BUILD[library](SIZE, BLOCKS, HIDDEN, DEPTH, torch.randn(1024, SIZE, generator=generator))
    module.to(device).train()
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    pipe.send(sum(weight.numel() for weight in weights))
    optimiser = torch.optim.Adam(weights, lr=1e-4, betas=(0.5, 0.9), fused=True if adam == "fused" else None)
    shared = torch.zeros(batch, len(SIZES), dtype=torch.bool)
    shared[torch.arange(batch), torch.arange(batch) % 2 + 1] = True
    columns = shared.repeat_interleave(torch.tensor(SIZES), dim=1)
    shared, similarity = shared.to(device), torch.full((batch,), 0.975, device=device)
    low = torch.autocast(device, torch.bfloat16) if name.endswith("bfloat16") else nullcontext()
    losses: list[torch.Tensor] = []

    def step() -> None:
        first, second = torch.randn(2, batch, SIZE, generator=generator)
        second = torch.where(columns, 0.975 * first + 0.222 * second, second)
        with low:
            factors, log_abs_det = net(torch.cat([first, second]).to(device))
        loss = pair_nll(
            *factors.float().chunk(2), *log_abs_det.float().chunk(2), sizes=SIZES, shared=shared, similarity=similarity
        ).mean()
        optimiser.zero_grad()
        loss.backward()
        if library == "iin":
            update(optimiser, 1.0)
        else:
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
        losses.append(loss.detach())

    while steps := pipe.recv():
        started, used = time.perf_counter(), time.process_time()
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        pipe.send(((time.perf_counter() - started) / steps, (time.process_time() - used) / steps))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else resident
    pipe.send((memory, float(torch.stack(losses[:FIRST_STEPS]).mean())))


def measure(batch: int, device: str, rounds: int, seconds: float, threads: int, peak: float) -> list[Result]:
    """Every contender in turn, `rounds` times about `seconds`."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    cpu_times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for name in CONTENDERS:
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=contend, args=(name, batch, device, threads, theirs), daemon=True))
        processes[-1].start()
        theirs.close()
        if (found := pipes[name].recv()) != PARAMETERS:
            raise RuntimeError(f"{name}: expected {PARAMETERS} parameters, got {found}")
        pipes[name].send(FIRST_STEPS)
        pipes[name].recv()
    steps = 0
    for _ in range(rounds):
        for name, pipe in pipes.items():
            steps = steps or max(2, round(seconds / _timed(pipes["iin"], 2)[0]))
            for kept, found in zip((times, cpu_times), _timed(pipe, steps), strict=True):
                kept[name].append(found)
    told = {}
    for name, pipe in pipes.items():
        pipe.send(0)
        told[name] = pipe.recv()
    for process in processes:
        process.join()
    rows, products = 2 * batch, PARAMETERS - BLOCKS * 2 * SIZE  # all but ActNorm; biases are too few to tell apart
    ideal = 6 * rows * products / peak  # a product forward, two backward, a multiplication and an addition each
    results = []
    for name, found in times.items():
        median, (memory, loss) = statistics.median(found), told[name]
        ratio = statistics.median(theirs / ours for theirs, ours in zip(found, times["iin"], strict=True))
        cpu = statistics.median(cpu_times[name])
        results.append(Result(name, device, batch, median, batch / median, ratio, ideal / median, memory, cpu, loss))
    return results


def _timed(pipe: Connection, steps: int) -> tuple[float, float]:
    """Seconds a step, and processor seconds."""
    pipe.send(steps)
    wall, cpu = pipe.recv()
    return wall, cpu


def matrix_peak(device: str, threads: int) -> float:
    """Operations a second of the fastest of a few float32 products, a multiplication and an addition each."""
    torch.set_num_threads(threads)
    best = 0.0
    for rows, size in ((512, 512), (1024, 1024), (2048, 2048)):
        a, b = torch.randn(rows, size, device=device), torch.randn(size, size, device=device)
        for _ in range(8):
            started = time.perf_counter()
            a @ b
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * rows * size * size / (time.perf_counter() - started))
    return best


def show(results: list[Result], console: Console) -> None:
    """Print the contenders of one device and batch, and the ratio to the faster of the others."""
    table = Table(title=f"{results[0].device}, batch {results[0].batch}")
    for column in ("contender", "ms", "CPU ms", "pairs/s", "x ours", "peak", "MB", "loss"):
        table.add_column(column, justify="left" if column == "contender" else "right", no_wrap=True)
    for result in results:
        table.add_row(
            result.contender,
            f"{result.seconds * 1e3:.1f}",
            f"{result.cpu_seconds * 1e3:.0f}",
            f"{result.pairs_per_second:.0f}",
            f"{result.ratio:.2f}",
            f"{result.peak_share:.0%}" if "bfloat16" not in result.contender else "",
            f"{result.memory / 1e6:.0f}",
            f"{result.loss:.3f}",
        )
    console.print(table)
    for kind in ("fused", "bfloat16"):
        best = min((one for one in results if one.contender in PEERS[kind]), key=lambda one: one.seconds)
        for ours in (one for one in results if one.contender in OURS):
            console.print(f"{ours.contender}: {best.seconds / ours.seconds:.2f} times as fast as {best.contender}")


def main() -> int:
    from deploy.capacity.measure import processor  # here, so that onnxruntime is in no contender's process

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[25, 256], help="pairs a step")
    parser.add_argument("--rounds", type=int, default=7, help="turns of every contender")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn, about")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, on the CPU")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    given = parser.parse_args()
    console = Console()
    results: list[Result] = []
    about = {"machine": platform.machine(), "CPU": processor(), "threads": str(given.threads)}
    about |= {library: version(library) for library in LIBRARIES}
    for device in ("cpu", "cuda")[: 1 + torch.cuda.is_available()]:
        peak = matrix_peak(device, given.threads)
        name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
        about[f"fastest product, {name}"] = f"{peak / 1e9:.0f} GFLOP/s"
        for batch in given.batch:
            try:
                measured = measure(batch, device, given.rounds, given.seconds, given.threads, peak)
            except (RuntimeError, EOFError) as error:
                print(f"bench-method: {error or 'a contender ended early, see above'}", file=sys.stderr)
                return 1
            show(measured, console)
            results += measured
    console.print(", ".join(f"{name} {value}" for name, value in about.items()), highlight=False)
    if given.json:
        given.json.write_text(json.dumps({"about": about, "results": [asdict(r) for r in results]}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
