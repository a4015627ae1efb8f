"""Measures what the rows of a bundle's graphs take on one core of this machine; counts what they compute."""

import datetime
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from iin_bundle import Bundle, read_bundle

__all__ = ["BATCHES", "measure", "milliseconds", "opened", "processor", "session_options"]

BATCHES = (1, 8, 32, 64)
ROWS = (("encoder", "transform"), ("transform",), ("inverse", "decoder"), ("inverse",))


def measure(directory: Path, *, rounds: int, seconds: float, progress: Callable[[str], None]) -> dict[str, Any]:
    """Rows of the bundle in `directory`, without overhead_ms, as JSON; `progress` is called with what is measured next.

    Processor time of the thread in the fastest tenth of the runs over `seconds`, median of `rounds`: near to what a
    core of one's own would take, whatever else runs. All batches take turns.
    """
    bundle = read_bundle(directory)
    roles = bundle.manifest.graphs
    rows = {row: _runs(bundle, row) for row in ROWS if all(role in roles for role in row)}
    found: dict[tuple[tuple[str, ...], int], list[float]] = {}
    for one in range(rounds):
        for row, runs in rows.items():
            for batch, run in runs.items():
                progress(f"round {one + 1} of {rounds}: {'+'.join(row)}, batch {batch}")
                found.setdefault((row, batch), []).append(milliseconds(run, seconds))
    counts = {role: _counted(bundle.graph_path(role)) for role in {role for row in rows for role in row}}
    return {
        "bundle": bundle.manifest.name,
        "machine": f"{processor()}, one thread, onnxruntime {onnxruntime.__version__}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "rows": {
            "+".join(row): {
                "ms": {str(batch): round(statistics.median(found[row, batch]), 3) for batch in BATCHES},
                **{name: round(sum(counts[role][name] for role in row), 4) for name in counts[row[0]]},
            }
            for row in rows
        },
    }


def _runs(bundle: Bundle, row: tuple[str, ...]) -> dict[int, Callable[[], object]]:
    """By batch: the graphs of a row on the bundle's golden inputs, each on the first output of the one before."""
    sessions = [opened(bundle.graph_path(role)) for role in row]
    items = bundle.golden[f"{row[0]}/{bundle.manifest.graphs[row[0]].inputs[0].name}"]

    def run(given: np.ndarray) -> None:
        for session in sessions:
            given = session.run(None, {session.get_inputs()[0].name: given})[0]

    return {batch: partial(run, np.resize(items, (batch, *items.shape[1:]))) for batch in BATCHES}


def session_options() -> onnxruntime.SessionOptions:
    """One thread, as a replica of the service has it (`iin_service.sessions`)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def opened(model: bytes | Path, options: onnxruntime.SessionOptions | None = None) -> onnxruntime.InferenceSession:
    """A session on the CPU, by default with `session_options`."""
    return onnxruntime.InferenceSession(model, options or session_options(), providers=["CPUExecutionProvider"])


def milliseconds(run: Callable[[], object], seconds: float) -> float:
    """Processor time of one run: the tenth percentile over `seconds`, which other work on the core hardly changes."""
    run(), run()  # onnxruntime plans its memory
    found: list[float] = []
    until = time.perf_counter() + seconds
    while len(found) < 3 or time.perf_counter() < until:
        started = time.thread_time()
        run()
        found.append(time.thread_time() - started)
    return 1e3 * sorted(found)[len(found) // 10]


def processor() -> str:
    """Name of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _counted(path: Path) -> dict[str, float]:
    """Arithmetic of the products, weights, traffic and nodes of a graph, for a batch of one."""
    model = onnx.load(path)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {one.name: list(one.dims) for one in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = [max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim]
    flop = sum(_flop(node, shapes) for node in graph.node)
    traffic = sum(2 * 4 * int(np.prod(shapes.get(name, [0]))) for node in graph.node for name in node.output)
    weights = sum(onnx.numpy_helper.to_array(one).nbytes for one in graph.initializer)
    return {"mflop": flop / 1e6, "weights_mb": weights / 1e6, "traffic_mb": traffic / 1e6, "nodes": len(graph.node)}


def _flop(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    """Twice the multiply-adds of a product or convolution; all else is counted as traffic."""
    if node.op_type in ("Gemm", "MatMul"):
        transposed = any(one.name == "transA" and one.i for one in node.attribute)
        inner = shapes[node.input[0]][0 if transposed else -1]
        return 2 * inner * int(np.prod(shapes[node.output[0]]))
    if node.op_type == "Conv":  # each output is a product over a filter of (C / group, kH, kW)
        return 2 * int(np.prod(shapes[node.output[0]])) * int(np.prod(shapes[node.input[1]][1:]))
    if node.op_type == "ConvTranspose":  # each input is spread over (C_out / group, kH, kW)
        return 2 * int(np.prod(shapes[node.input[0]])) * int(np.prod(shapes[node.input[1]][1:]))
    return 0
