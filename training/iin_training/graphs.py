"""One network as an ONNX graph that does as the network does."""

import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from iin_training.models.frozen import FrozenModel
from iin_training.models.onnx_model import OnnxModule
from iin_training.processes import rank

__all__ = [
    "PARITY_BATCHES",
    "PARITY_TOLERANCE",
    "TENSORS",
    "ExportError",
    "Network",
    "check_exportable",
    "data_path",
    "open_runner",
    "outputs_of",
    "write_graph",
]

PARITY_TOLERANCE = 1e-4
PARITY_BATCHES = (1, 3, 32)
EMBEDDED_BYTES = 1 << 30  # larger tensors go to a file of their own, since protobuf is limited to 2 GiB
TENSORS = {
    "encoder": ("image", ("latent",)),
    "transform": ("latent", ("factors", "log_abs_det")),
    "inverse": ("factors", ("latent", "log_abs_det")),
    "decoder": ("latent", ("image",)),
    "head": ("latent", ("probabilities",)),
}
"""The names of the input and of the outputs of each graph."""
Array = NDArray[np.float32]
Network = Callable[[Tensor], Any]
"""Gives a tensor, or a tuple of them."""


class ExportError(RuntimeError):
    """A graph that does not reproduce its network; nothing is left behind that could be served."""


def check_exportable(model: FrozenModel, images: Tensor, directory: Path) -> None:
    """Export a frozen model's networks to a folder that is thrown away, so that none fails after T is trained.

    Args:
        model: on the CPU.
        images: real ones, `(N, C, H, W)`, N >= 32.
        directory: where the folder is made; that of the run, whose disk has to hold the bundle.

    Raises:
        ExportError: as `write_graph`.
        OSError: where they cannot be written.

    """
    latents = model.encode(images)
    folder = directory / f"tried-{rank()}"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed meanwhile
    folder.mkdir()
    try:
        for role, network in model.networks().items():
            write_graph(role, network, folder / f"{role}.onnx", images if role == "encoder" else latents)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_graph(role: str, network: Network, path: Path, inputs: Tensor, graph: onnx.ModelProto | None = None) -> None:
    """Write `network` to `path`, with a dynamic batch axis, and compare both at batches of 1, 3 and 32.

    Tensors of more than a GiB together go to the file `data_path(path)`.

    Args:
        role: name of the graph, which decides the names of its tensors, see `TENSORS`.
        network: on the CPU, takes a batch `(N, ...)` and gives one tensor or several, N rows each. A module, unless
            there is a `graph`; an `OnnxModule` is a graph already, which is copied.
        path: of the ONNX file.
        inputs: at least 32 real rows.
        graph: the network as a graph, where we write it ourselves; else torch exports it.

    Raises:
        ExportError: where the network does not export, or the graph differs; with the measured and allowed error.

    """
    input_name, output_names = TENSORS[role]
    if graph is not None:
        size = sum(len(tensor.raw_data) for tensor in graph.graph.initializer)
        onnx.save(graph, path, save_as_external_data=size > EMBEDDED_BYTES, location=data_path(path).name)
        onnx.checker.check_model(path, full_check=True)
    elif isinstance(network, OnnxModule):
        network.write(path, input_name=input_name, example=inputs[:2], output_name=output_names[0])
    else:
        assert isinstance(network, nn.Module)
        _export(role, network, path, inputs[:2], input_name, output_names)
    try:
        run = open_runner(path)
    except Exception as error:  # onnxruntime raises classes of its own for every fault
        raise ExportError(
            f"{role}: expected a graph that onnxruntime runs, got: {' '.join(str(error).split())[:300]}{_remedy(role)}"
        ) from error
    for batch in PARITY_BATCHES:
        _check_parity(role, network, run, inputs[:batch])


def data_path(path: Path) -> Path:
    """Where the tensors of the graph at `path` lie if they are too large to be inside; torch gives this name."""
    return path.with_name(path.name + ".data")


def _export(
    role: str, network: nn.Module, path: Path, example: Tensor, input_name: str, output_names: tuple[str, ...]
) -> None:
    size = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own dependencies
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which is not needed
        try:
            torch.onnx.export(
                network,
                (example,),
                path,
                input_names=(input_name,),
                output_names=output_names,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                dynamo=True,
                external_data=size > EMBEDDED_BYTES,
                verbose=False,
            )
        except Exception as error:  # the exporter raises classes of its own for every fault
            if isinstance(cause := error.__cause__ or error, OSError):
                raise cause from None  # a full disk is no fault of the network
            raise _not_exported(role, " ".join(str(error.__cause__ or error).split())[:300]) from error
    onnx.checker.check_model(path, full_check=True)
    shape = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape
    if shape.dim[0].HasField("dim_value"):  # the exporter would rather fix an axis than fail
        raise _not_exported(role, f"a graph for batches of {shape.dim[0].dim_value} only")


def _not_exported(role: str, reason: str) -> ExportError:
    return ExportError(
        f"{role}: expected a network that torch.onnx exports for batches of any size, got: {reason}; change "
        "its forward (x.shape[0] rather than len(x), no branches on values), or give an ONNX file instead"
    )


def _remedy(role: str) -> str:
    if role in ("transform", "inverse"):  # ours
        return ""
    return "; float16, bfloat16 or autocast inside the network may be to blame, so keep it in float32 throughout"


def open_runner(path: Path) -> Callable[[Array], tuple[Array, ...]]:
    """A function that runs an ONNX file of one input on the CPU."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(items: Array) -> tuple[Array, ...]:
        return tuple(session.run(None, {name: items}))

    return run


@torch.no_grad()
def outputs_of(network: Network, inputs: Tensor) -> tuple[Tensor, ...]:
    """What a network gives, as a tuple however many it gives."""
    outputs = network(inputs.clone())  # which a stranger's may change in place
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _check_parity(role: str, network: Network, run: Callable[[Array], tuple[Array, ...]], inputs: Tensor) -> None:
    for expected, found in zip(outputs_of(network, inputs), run(inputs.numpy()), strict=True):
        scale = max(1.0, float(expected.abs().max()))
        error = float(np.abs(found - expected.numpy()).max()) / scale if found.shape == expected.shape else np.inf
        if not error <= PARITY_TOLERANCE:
            raise ExportError(
                f"{role}: onnxruntime differs from torch by {error:.3g} at batch {len(inputs)}, "
                f"allowed {PARITY_TOLERANCE:g}{_remedy(role)}"
            )
