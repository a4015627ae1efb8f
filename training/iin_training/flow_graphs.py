"""T as two ONNX graphs, written block by block: fewer nodes than an exporter makes of it."""

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from iin_training.flows import ActNorm, DoubleCoupling, Flatten, Flow, Nets, Permutation

__all__ = ["FlowGraph", "WriteNets", "float_nets", "flow_graph"]

OPSET, IR_VERSION = 20, 10
LEAK = 0.01  # of LeakyReLU, as in `Nets`
LINE = 16  # float32 numbers in a cache line


class FlowGraph:
    """A graph under construction: nodes in order, and constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: NDArray[np.generic]) -> str:
        """Keep an array; returns its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: float) -> str:
        """Append a node of one output; returns its name."""
        name = f"{operator}_{len(self.nodes)}_0"
        self.nodes.append(helper.make_node(operator, inputs, (name,), **attributes))
        return name

    def split(self, value: str, sizes: tuple[int, int]) -> tuple[str, str]:
        """Append a node that splits `(N, sum of sizes)` in two; returns the names of both."""
        halves = f"Split_{len(self.nodes)}_0", f"Split_{len(self.nodes)}_1"
        where = self.constant(np.array(sizes, np.int64))
        self.nodes.append(helper.make_node("Split", (value, where), halves, axis=1))
        return halves


WriteNets = Callable[[FlowGraph, Nets, str], tuple[str, str]]
"""Appends the nets of a half-step for an input `(N, inputs)`; returns s before its tanh, and t, `(N, outputs)`."""


def float_nets(graph: FlowGraph, nets: Nets, given: str) -> tuple[str, str]:
    """The nets of a half-step as they are, in float32."""

    def net(index: int) -> str:
        value = given
        for layer, (weight, bias) in enumerate(zip(nets.weights, nets.biases, strict=True)):
            if layer:
                value = graph.add("LeakyRelu", value, alpha=LEAK)
            constants = graph.constant(_array(weight[index])), graph.constant(_array(bias[index, 0]))
            value = graph.add("Gemm", value, *constants)
        return value

    return net(0), net(1)


def flow_graph(flow: Flow, *, inverse: bool, nets: WriteNets = float_nets) -> onnx.ModelProto:
    """One direction of `flow` as a graph with a dynamic batch axis.

    Args:
        flow: T, on any device, with a coupling among its blocks.
        inverse: `factors (N, D)` to `latent (N, *latent_shape)`, else the other way; the second output is
            `log_abs_det (N,)` of that direction, nats.
        nets: writes the nets s and t.

    Raises:
        TypeError: for a block of a type that is not written here.

    """
    writer = _Direction(nets, inverse=inverse)
    size, shape = 0, None
    value = "factors" if inverse else "latent"
    blocks = list(flow.blocks)
    for block in reversed(blocks) if inverse else blocks:
        if isinstance(block, Flatten):
            shape, size = block.shape, block.size
            value = writer.flatten(block, value)
        elif isinstance(block, ActNorm):
            size = len(block.shift)
            value = writer.normalised(block, value)
        elif isinstance(block, DoubleCoupling):
            value = writer.coupled(block, value)
        elif isinstance(block, Permutation):
            value = writer.permuted(block, value)
        else:
            raise TypeError(
                f"flow: expected blocks that have a graph, got {type(block).__name__}; write its nodes in {__name__}"
            )
    latent, factors = ("latent", list(shape or (size,))), ("factors", [size])
    given, found = (factors, latent) if inverse else (latent, factors)
    return writer.model(given, found, value)


class _Direction(FlowGraph):
    """Writes blocks in one direction, and gathers what they contribute to the log-determinant."""

    def __init__(self, nets: WriteNets, *, inverse: bool) -> None:
        super().__init__()
        self._nets, self._inverse = nets, inverse
        self._scales: list[str] = []  # tanh(s) of every half-step
        self._width = 0  # of all of them beside each other
        self._log_abs_det = 0.0  # of the blocks where it is a constant, forward

    def flatten(self, block: Flatten, value: str) -> str:
        shape = (0, *block.shape) if self._inverse else (0, block.size)
        return self.add("Reshape", value, self._indices(*shape))

    def normalised(self, block: ActNorm, value: str) -> str:
        shift, log_scale = block.shift.detach().double(), block.log_scale.detach().double()
        self._log_abs_det += float(log_scale.sum())
        if self._inverse:
            steps = (("Mul", (-log_scale).exp()), ("Add", -shift))
        else:  # in this order, as in ActNorm: scaled first, latents far from 0 would lose what the shift leaves of them
            steps = (("Add", shift), ("Mul", log_scale.exp()))
        for operator, values in steps:
            value = self.add(operator, value, self.constant(_array(values)))
        return value

    def permuted(self, block: Permutation, value: str) -> str:
        order = block.inverse_order if self._inverse else block.order
        return self.add("Gather", value, self._indices(*order.tolist()), axis=1)

    def coupled(self, block: DoubleCoupling, value: str) -> str:
        a, b = self.split(value, block.split)
        if self._inverse:
            a = self._half_step(block.second, b, a)
            b = self._half_step(block.first, a, b)
        else:
            b = self._half_step(block.first, a, b)
            a = self._half_step(block.second, b, a)
        return self.add("Concat", a, b, axis=1)

    def _half_step(self, nets: Nets, given: str, changed: str) -> str:
        s, t = self._nets(self, nets, given)
        scale = self.add("Tanh", s)
        self._scales.append(scale)
        self._width += nets.biases[-1].shape[-1]
        factor = self.add("Exp", scale)
        if self._inverse:
            return self.add("Div", self.add("Sub", changed, t), factor)
        return self.add("Add", self.add("Mul", changed, factor), t)

    def _total(self) -> str:
        """The log-determinant: one sum for all half-steps.

        onnxruntime adds up a row in an order that depends on where it lies in memory; rows of full cache lines are
        all alike, so that an item gets the same bits in any batch.
        """
        scales = self.add("Concat", *self._scales, axis=1)
        if missing := -self._width % LINE:
            scales = self.add("Pad", scales, self._indices(0, 0, 0, missing))
        total = self.add("ReduceSum", scales, self._indices(1), keepdims=0)
        total = self.add("Add", total, self.constant(np.array(self._log_abs_det, dtype=np.float32)))
        return self.add("Neg", total) if self._inverse else total

    def _indices(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def model(self, given: tuple[str, list[int]], found: tuple[str, list[int]], value: str) -> onnx.ModelProto:
        """The finished graph."""
        total = self._total()
        outputs = {value: found[0], total: "log_abs_det"}
        for node in self.nodes:
            renamed = [outputs.get(name, name) for name in node.output]
            node.ClearField("output")
            node.output.extend(renamed)
        graph = helper.make_graph(
            self.nodes,
            "T inverted" if self._inverse else "T",
            [_tensor(*given)],
            [_tensor(*found), _tensor("log_abs_det", [])],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _tensor(name: str, shape: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])


def _array(values: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(values.detach().cpu().numpy(), dtype=np.float32)
