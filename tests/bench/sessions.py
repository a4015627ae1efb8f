"""Benchmark: other ways to run a bundle's graphs in onnxruntime that the service does not take, and its batch limit.

    .venv/bin/python -m tests.bench.sessions build/demo/bundle   about a minute

One thread, the session settings of the service. Three tables: the time of an item by the size of its batch; encoder
and T as one graph in one session beside two; opening a session from the bundle beside opening it from the graph that
onnxruntime has optimised and written. Processor time where graphs run, as in `graphs`; wall time for the last.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from iin_bundle import Bundle, read_bundle

from deploy.capacity.measure import milliseconds, opened, session_options

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OPENED = 9  # times


def of_bundle(bundle: Bundle, role: str) -> tuple[onnxruntime.InferenceSession, np.ndarray]:
    """A graph, and as many rows of its golden input as the largest batch has."""
    session = opened(bundle.graph_path(role))
    rows = bundle.golden[f"{role}/{session.get_inputs()[0].name}"]
    return session, np.resize(rows, (BATCHES[-1], *rows.shape[1:]))


def batch_sizes(bundle: Bundle, seconds: float) -> None:
    """Print milliseconds an item for each graph, by the size of the batch."""
    print("| ms an item, batch |", " | ".join(map(str, BATCHES)), "|\n|" + "---|" * (1 + len(BATCHES)))
    for role in bundle.manifest.graphs:
        session, rows = of_bundle(bundle, role)
        runs = (partial(session.run, None, {session.get_inputs()[0].name: rows[:size]}) for size in BATCHES)
        times = [milliseconds(run, seconds) / size for run, size in zip(runs, BATCHES, strict=True)]
        print(f"| {role} |", " | ".join(f"{one:.3f}" for one in times), "|", flush=True)


def one_session(bundle: Bundle, rounds: int, seconds: float) -> None:
    """Print how long encoder and T take as one graph, relative to one after the other."""
    encoder, images = of_bundle(bundle, "encoder")
    transform, _ = of_bundle(bundle, "transform")
    image, latent = encoder.get_inputs()[0].name, encoder.get_outputs()[0].name
    input_name = transform.get_inputs()[0].name
    graphs = [
        onnx.compose.add_prefix(onnx.load(bundle.graph_path(role)), f"{role}/") for role in ("encoder", "transform")
    ]
    graphs[1].ir_version = graphs[0].ir_version = max(graph.ir_version for graph in graphs)
    both = opened(
        onnx.compose.merge_models(
            *graphs, io_map=[(f"encoder/{latent}", f"transform/{input_name}")]
        ).SerializeToString()
    )

    def in_two(batch: np.ndarray) -> None:
        (latents,) = encoder.run(None, {image: batch})
        transform.run(None, {input_name: latents})

    print("\n| one session / two, batch | 1 | 8 | 64 |\n|---|---|---|---|")
    ratios = []
    for size in (1, 8, 64):
        one = partial(both.run, None, {f"encoder/{image}": images[:size]})
        two = partial(in_two, images[:size])
        ratios.append(statistics.median(milliseconds(one, seconds) / milliseconds(two, seconds) for _ in range(rounds)))
    print("| encoder and T |", " | ".join(f"{ratio:.2f}" for ratio in ratios), "|", flush=True)


def optimised_graphs(bundle: Bundle) -> None:
    """Print how long a session takes to open, from the bundle and from what onnxruntime made of it."""
    print("\n| ms to open a session | from the bundle | from the optimised graph |\n|---|---|---|")
    for role in bundle.manifest.graphs:
        source = bundle.graph_path(role)
        with tempfile.TemporaryDirectory() as folder:
            saving, ready = session_options(), session_options()
            saving.optimized_model_filepath = str(Path(folder) / "graph.onnx")
            saving.log_severity_level = 3  # it warns that the file is for this machine alone
            opened(source, saving)
            ready.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(OPENED):
                for found, (path, options) in zip(
                    times, ((source, None), (Path(folder) / "graph.onnx", ready)), strict=True
                ):
                    started = time.perf_counter()
                    opened(path, options)
                    found.append(1e3 * (time.perf_counter() - started))
        print(f"| {role} |", " | ".join(f"{statistics.median(found):.1f}" for found in times), "|", flush=True)


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement")
    given = parser.parse_args()
    bundle = read_bundle(given.bundle)
    batch_sizes(bundle, given.seconds)
    one_session(bundle, given.rounds, given.seconds)
    optimised_graphs(bundle)


if __name__ == "__main__":
    main()
