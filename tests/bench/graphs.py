"""Benchmark: what each graph of a bundle takes in onnxruntime, beside the same graph of other bundles.

    .venv/bin/python -m tests.bench.graphs build/demo/bundle build/int8/bundle   about a minute a pair
    .venv/bin/python -m tests.bench.graphs                                       T of the paper's size, random weights

One thread, the session settings of the service, the bundles' own golden inputs repeated. Milliseconds are those of
the processor in the fastest tenth of the runs, so that others at work on the same cores count as little as they can;
all take turns, round by round: read the ratios to the first. Without bundles, T has 64 dimensions, 12 blocks and nets
of 3 hidden layers of 512, in float32 and in int8; its weights are not trained, ActNorm is initialised.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from iin_bundle import read_bundle
from iin_training.flow_graphs import flow_graph
from iin_training.flows import interpretation_flow
from iin_training.quantised_flow import QuantisedFlow

from deploy.capacity.measure import milliseconds, opened

BATCHES = (1, 8, 32, 64)
PAPER = {"blocks": 12, "hidden": 512, "depth": 3}
PAPER_SIZE = 64
Run = Callable[[], object]
Stages = dict[str, tuple[onnxruntime.InferenceSession, np.ndarray]]
"""By role: the graph, and rows of input."""


def of_bundle(directory: Path) -> Stages:
    """The graphs of a bundle."""
    bundle = read_bundle(directory)
    return {
        role: (opened(bundle.graph_path(role)), bundle.golden[f"{role}/{graph.inputs[0].name}"])
        for role, graph in bundle.manifest.graphs.items()
    }


def of_paper() -> dict[str, Stages]:
    """T of the paper's size, float32 first."""
    torch.manual_seed(0)
    latents = torch.randn(2000, PAPER_SIZE)
    flow = interpretation_flow(PAPER_SIZE, seed=0, **PAPER)
    flow.initialize(latents)
    quantised = QuantisedFlow(flow.eval().requires_grad_(False), latents)
    with torch.no_grad():
        rows = {"transform": latents[:64].numpy(), "inverse": flow(latents[:64])[0].numpy()}

    def stages(graph: Callable[[bool], onnx.ModelProto]) -> Stages:
        return {role: (opened(graph(role == "inverse").SerializeToString()), rows[role]) for role in rows}

    return {
        "float32": stages(lambda inverse: flow_graph(flow, inverse=inverse)),
        "int8": stages(lambda inverse: quantised.graph(inverse=inverse)),
    }


def compare(contenders: dict[str, Stages], rounds: int, seconds: float) -> None:
    """Print a Markdown table: ms of each, and the median over the rounds of its ratio to the first."""
    first, *others = contenders
    print("| graph | batch |", " | ".join(contenders), "|", " | ".join(f"{name} / {first}" for name in others), "|")
    print("|---" * (2 + len(contenders) + len(others)) + "|")
    for role in contenders[first]:
        for batch in BATCHES:
            runs: dict[str, Run] = {}
            for name, stages in contenders.items():
                session, rows = stages[role]
                given = {session.get_inputs()[0].name: np.resize(rows, (batch, *rows.shape[1:]))}
                runs[name] = partial(session.run, None, given)
            found = [{name: milliseconds(run, seconds) for name, run in runs.items()} for _ in range(rounds)]
            times = [f"{statistics.median(one[name] for one in found):.2f}" for name in contenders]
            ratios = [f"{statistics.median(one[name] / one[first] for one in found):.2f}" for name in others]
            print(f"| {role} | {batch} |", " | ".join(times + ratios), "|", flush=True)


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path, help="directories; others are compared with the first")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each measurement")
    given = parser.parse_args()
    torch.set_num_threads(1)
    contenders = {str(path): of_bundle(path) for path in given.bundles} or of_paper()
    compare(contenders, given.rounds, given.seconds)


if __name__ == "__main__":
    main()
