"""A part of the frozen model given as an ONNX file: run as it is while training, copied into the bundle."""

import hashlib
from functools import cached_property
from pathlib import Path

import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

__all__ = ["OnnxModule"]

DYNAMIC = "export it again with a dynamic batch axis (torch.onnx.export: dynamic_shapes or dynamic_axes)"


class OnnxModule(nn.Module):
    """An ONNX graph of one float32 input and one float32 output as a module, run by onnxruntime on the CPU.

    Of an encoder that samples it has two outputs, mean and log-variance. It has no parameters and no gradient. Outputs
    come back on the device of the input.
    """

    def __init__(
        self,
        source: str | Path | onnx.ModelProto,
        *,
        output: str | tuple[str, str] | None = None,
        name: str = "ONNX model",
    ) -> None:
        """Read and check a graph; tensors in external files beside it are taken into memory.

        Args:
            source: an ONNX file, or a model in memory.
            output: name of the output to use, where the graph has several; names of those with mean and log-variance,
                where it samples.
            name: what messages call a model in memory; a file is called by its path.

        Raises:
            ValueError: where the file does not read, takes or gives other tensors than these or others than
                float32, or has a fixed batch axis.

        """
        super().__init__()
        in_memory = isinstance(source, onnx.ModelProto)
        self.name = name if in_memory else str(source)
        self._model = _with_outputs(source if in_memory else _load(Path(source)), output, self.name)
        for value in (*_inputs(self._model), *self._model.graph.output):
            _check_tensor(value, self.name)
        try:
            self._content: bytes = self._model.SerializeToString()
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            self._session = onnxruntime.InferenceSession(self._content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime and protobuf raise classes of their own for every fault
            raise ValueError(
                f"{self.name}: expected a graph of less than 2 GiB that onnxruntime loads, got: {_line(error)}; "
                "export it again with operators of the standard ONNX domains; where it is too new, for an older opset "
                "and IR version"
            ) from error

    def forward(self, items: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The graph's output for a batch `(N, ...)`, or a tuple of both, on the same device."""
        given = items.detach().cpu().contiguous().numpy()
        try:
            outputs = self._session.run(None, {self._session.get_inputs()[0].name: given})
        except Exception as error:
            raise ValueError(
                f"{self.name}: expected a graph that takes batches of shape {list(given.shape)}, got: {_line(error)}; "
                f"check image_shape, and if the batch size is to blame {DYNAMIC}"
            ) from error
        for found in outputs:
            if found.shape[:1] != given.shape[:1]:
                raise ValueError(
                    f"{self.name}: expected a row for each of {len(given)} items, got shape {list(found.shape)}; "
                    f"{DYNAMIC}"
                )
        tensors = tuple(torch.from_numpy(found).to(items.device) for found in outputs)
        return tensors[0] if len(tensors) == 1 else tensors

    def digest(self) -> str:
        """Hexadecimal sha256 of the graph, weights included."""
        return hashlib.sha256(self._content).hexdigest()

    @cached_property  # a session and a copy of the weights of its own
    def mean(self) -> "OnnxModule":
        """The same graph with its first output alone."""
        return OnnxModule(self._model, output=self._model.graph.output[0].name, name=self.name)

    def with_softmax(self) -> "OnnxModule":
        """The same graph followed by a softmax over the classes of its output `(N, classes)`."""
        model = _renamed(self._model, "logits_of_head", "logits")
        (logits,) = model.graph.output
        model.graph.node.append(helper.make_node("Softmax", [logits.name], ["probabilities"], axis=1))
        logits.name = "probabilities"
        return OnnxModule(model, name=self.name)

    def write(self, path: Path, *, input_name: str, example: Tensor, output_name: str) -> None:
        """Copy the graph to `path` under a bundle's tensor names, its batch axis called `batch`.

        Every other axis gets the size that it has for `example`, `(N, ...)`, so that nothing else varies.
        """
        model = _renamed(self._model, input_name, output_name)
        (given,) = _inputs(model)
        (found,) = model.graph.output
        for value, shape in ((given, example.shape), (found, self(example).shape)):
            value.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch", *shape[1:]]))
        del model.graph.value_info[:]  # says "N" where the batch axis is called otherwise now
        onnx.save(model, path)  # not checked: onnxruntime runs it, which takes more than the standard allows


def _load(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ValueError(f"{path}: expected an ONNX file, found none; check the path")
    try:
        if not (model := onnx.load(path)).graph.node:
            raise ValueError("no graph in it")
        return model
    except Exception as error:  # protobuf's DecodeError, onnx's ValidationError, OSError
        raise ValueError(
            f"{path}: expected a whole ONNX file, and beside it every file of external data that it names, "
            f"got: {_line(error)}; copy it again with all that belongs to it"
        ) from error


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs proper: old files list their weights among them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _with_outputs(model: onnx.ModelProto, output: str | tuple[str, str] | None, name: str) -> onnx.ModelProto:
    """The graph with one input and the outputs asked for; what only led to others stays, but is not run."""
    inputs, outputs = ([value.name for value in side] for side in (_inputs(model), model.graph.output))
    if len(inputs) != 1:
        raise ValueError(
            f"{name}: expected one input, got {', '.join(inputs) or 'none'}; export a model that takes a batch only, "
            "with everything else made constant"
        )
    if output is None and len(outputs) > 1:
        raise ValueError(
            f"{name}: expected one output, got {', '.join(outputs)}; choose one of them by name: "
            f"output='{outputs[0]}', or mean and log-variance of an encoder that samples: output=('...', '...')"
        )
    wanted = outputs if output is None else [output] if isinstance(output, str) else list(output)
    if unknown := [one for one in wanted if one not in outputs]:
        raise ValueError(f"{name}: output: expected one of {', '.join(outputs)}, got '{unknown[0]}'")
    kept, by_name = onnx.ModelProto(), {value.name: value for value in model.graph.output}
    kept.CopyFrom(model)
    del kept.graph.output[:]
    kept.graph.output.extend(by_name[one] for one in wanted)
    return kept


def _check_tensor(value: onnx.ValueInfoProto, name: str) -> None:
    tensor = value.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        given = TensorProto.DataType.Name(tensor.elem_type)
        raise ValueError(f"{name}: {value.name}: expected float32, got {given}; export it with float32 there")
    sizes = tensor.shape.dim
    if tensor.HasField("shape") and (len(sizes) < 2 or sizes[0].HasField("dim_value")):
        shape = [size.dim_value if size.HasField("dim_value") else size.dim_param or "?" for size in sizes]
        raise ValueError(
            f"{name}: {value.name}: expected a batch axis of any size before at least one other, got {shape}; {DYNAMIC}"
        )


def _renamed(model: onnx.ModelProto, input_name: str, output_name: str) -> onnx.ModelProto:
    """A copy whose input and output have these names; every other name gets a prefix, so that none collides."""
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    graph = renamed.graph
    _prefix(graph)
    (given,) = _inputs(renamed)
    (found,) = graph.output
    first = helper.make_node("Identity", [input_name], [given.name])
    last = helper.make_node("Identity", [found.name], [output_name])
    given.name, found.name = input_name, output_name
    nodes = [first, *graph.node, last]
    del graph.node[:]
    graph.node.extend(nodes)
    return renamed


def _prefix(graph: onnx.GraphProto) -> None:
    """Put `frozen/` before every name in a graph; also where a branch or the body of a loop uses a value around it.

    Those `onnx.compose.add_prefix` passes over.
    """
    named = [*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)]
    for value in (*named, *graph.input, *graph.output, *graph.value_info):
        value.name = f"frozen/{value.name}"
    del graph.quantization_annotation[:]  # speaks of names, and onnxruntime does without
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name and f"frozen/{name}" for name in names]  # one that is left out is empty
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _prefix(inner)


def _line(error: Exception) -> str:
    """What went wrong, on one line: onnxruntime puts the reason last, behind a signature of its own."""
    return " ".join(str(error).split())[-300:] or type(error).__name__
