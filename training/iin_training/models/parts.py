"""Checks of a user's network before it becomes a part of a frozen model."""

from typing import Any

import torch
from torch import Tensor, nn

from iin_training.models.onnx_model import OnnxModule

__all__ = ["check_output", "check_part", "try_part"]

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, torch.jit.ScriptModule)  # torch.onnx takes none


def check_part(role: str, part: object) -> None:
    """Put a part, or a classifier that is to be cut, in eval mode; refuse what cannot be frozen or exported.

    Raises:
        ValueError: where it is no module, a wrapper of one, holds an ONNX graph, has weights without values, or has no
            eval mode.

    """
    if not isinstance(part, nn.Module):
        raise ValueError(
            f"{role}: expected a torch module or an OnnxModule, got {type(part).__name__}; "
            "give one, or wrap a function in a module"
        )
    if isinstance(part, WRAPPERS) or hasattr(part, "_orig_mod"):
        raise ValueError(
            f"{role}: expected a module that torch.onnx exports, got {type(part).__name__}; give the one inside it "
            "(.module of DataParallel, ._orig_mod of torch.compile), for TorchScript the one it was made from, or an "
            "ONNX file"
        )
    if not isinstance(part, OnnxModule) and any(isinstance(module, OnnxModule) for module in part.modules()):
        raise ValueError(
            f"{role}: expected a torch module or an OnnxModule, got {type(part).__name__} with an OnnxModule inside, "
            "which nothing exports; make what is around it a part of the ONNX file (onnx.compose.merge_models)"
        )
    for name, value in (*part.named_parameters(), *part.named_buffers()):
        if nn.parameter.is_lazy(value) or value.is_meta:
            raise ValueError(
                f"{role}: expected weights, got none for {name}, which is lazy or on the meta device; load them first"
            )
    try:
        part.eval()
    except NotImplementedError as error:
        raise ValueError(
            f"{role}: expected a module with an eval mode, got: {error}; give the one that torch.export was given, "
            "or an ONNX file"
        ) from error


def try_part(role: str, network: nn.Module, items: Tensor) -> Any:
    """The output of a part, or of a classifier to cut, for a batch; `ValueError` with a remedy where it fails."""
    try:
        return network(items.clone())  # which it may change in place
    except Exception as error:  # a user's forward may raise anything
        weights = (value.dtype for value in (*network.parameters(), *network.buffers()) if value.is_floating_point())
        other = next((dtype for dtype in weights if dtype != items.dtype), None)
        remedy = "check image_shape, and let it take batches of any size"
        if role in ("decoder", "head"):
            remedy = "give one that takes the encoder's latents as they are, and nothing else"
        if other is not None:
            remedy = f"its weights are {other}, convert it with .float()"
        raise ValueError(
            f"{role}: expected a network that takes {items.dtype} of shape {list(items.shape)}, got: {error}; {remedy}"
        ) from error


def check_output(role: str, output: object, wanted: tuple[int, ...] | None) -> None:
    """Refuse an output for two items that is not float32, has no row for each, or has not the shape `wanted`."""
    if not isinstance(output, Tensor):
        remedy = "the latents alone, or (mean, log_variance)" if role == "encoder" else "the tensor alone"
        raise ValueError(
            f"{role}: expected a tensor, got {type(output).__name__}; wrap it in a module that returns {remedy}"
        )
    if output.dtype != torch.float32:
        remedy = "convert it with .float()" if output.is_floating_point() else "of codes give what they stand for"
        raise ValueError(f"{role}: expected float32, got {output.dtype}; {remedy}")
    if output.ndim < 2 or len(output) != 2 or (wanted is not None and tuple(output.shape[1:]) != wanted):
        raise ValueError(
            f"{role}: expected shape {[2, *(wanted or ['...'])]} for a batch of 2, got {list(output.shape)}; "
            "keep the batch axis first and apart from all others"
            + ("" if wanted is None else ", and give images of the encoder's size")
        )
