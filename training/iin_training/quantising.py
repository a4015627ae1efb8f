"""The nets s and t of T in 8 bits: weights and activations with scales that are fixed before export."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from iin_training.flow_graphs import LEAK, FlowGraph
from iin_training.flows import DoubleCoupling, Flow, Nets

__all__ = ["Codes", "QuantisedNets", "quantise"]

WEIGHT_LIMIT = 64  # so that two products with bytes fit the 16 bits in which processors without VNNI add them
LEAST_SCALE = 1e-12
LARGEST_BIAS = 2.0**30  # half of what is there, so that rounding does not carry one over the end


@dataclass(frozen=True)
class Codes:
    """How numbers become bytes: `round(x / scale) + zero`, in [0, 255]."""

    scale: float
    zero: int

    @classmethod
    def of(cls, values: Tensor) -> "Codes":
        """Codes that cover the range of `values` and have one for 0."""
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        scale = float(np.float32(max((high - low) / 255, LEAST_SCALE)))
        return cls(scale, round(-low / scale))


@dataclass(frozen=True)
class _Layer:
    """One linear layer in 8 bits."""

    weight: NDArray[np.int8]
    """`(inputs, outputs)`."""
    weight_scales: NDArray[np.float32]
    """Of each output."""
    bias: NDArray[np.int32]
    """In units of the products: scale of the input times that of the weights."""
    output: Codes | None
    """Of the activations after LeakyReLU; None for the last layer, which gives float32."""


@dataclass(frozen=True)
class QuantisedNets:
    """Both nets of a half-step, ready to be written into either direction of T."""

    input: Codes
    nets: tuple[tuple[_Layer, ...], tuple[_Layer, ...]]

    def write(self, graph: FlowGraph, given: str) -> tuple[str, str]:
        """Append s and t for `given`; standard operators that onnxruntime fuses to products of bytes."""
        codes = _quantised(graph, given, self.input)

        def net(layers: tuple[_Layer, ...]) -> str:
            value, read = codes, self.input
            for layer in layers:
                items = graph.add("DequantizeLinear", value, *_constants(graph, read))
                value = graph.add("Gemm", items, *_parameters(graph, layer, read))
                if layer.output is not None:
                    value = graph.add("LeakyRelu", value, alpha=LEAK)
                    value, read = _quantised(graph, value, layer.output), layer.output
            return value

        return net(self.nets[0]), net(self.nets[1])


def _constants(graph: FlowGraph, codes: Codes) -> tuple[str, str]:
    return graph.constant(np.array(codes.scale, np.float32)), graph.constant(np.array(codes.zero, np.uint8))


def _quantised(graph: FlowGraph, value: str, codes: Codes) -> str:
    return graph.add("QuantizeLinear", value, *_constants(graph, codes))


def _parameters(graph: FlowGraph, layer: _Layer, read: Codes) -> tuple[str, str]:
    """Weights and bias, as onnxruntime expects them of a product that it fuses."""

    def parameter(codes: NDArray[np.generic], scales: NDArray[np.float32], axis: int) -> str:
        zeros = np.zeros(len(scales), codes.dtype)
        constants = graph.constant(codes), graph.constant(scales), graph.constant(zeros)
        return graph.add("DequantizeLinear", *constants, axis=axis)

    weight = parameter(layer.weight, layer.weight_scales, 1)
    return weight, parameter(layer.bias, np.float32(read.scale) * layer.weight_scales, 0)


@torch.no_grad()
def quantise(flow: Flow, latents: Tensor) -> Mapping[Nets, QuantisedNets]:
    """The nets of every half-step of T in 8 bits, with the ranges that activations take for `latents`.

    These are of some thousand training pictures, `(N, *latent_shape)`. Weights have a scale for each output,
    activations one for a whole tensor.
    """
    found: dict[Nets, QuantisedNets] = {}
    value = latents.to(next(flow.parameters()).device)
    for block in flow.blocks:
        if isinstance(block, DoubleCoupling):
            half = block.split[0]
            found[block.first] = _quantise_nets(block.first, value[:, :half])
            found[block.second] = _quantise_nets(block.second, block(value)[0][:, half:])
        value = block(value)[0]
    return found


def _quantise_nets(nets: Nets, given: Tensor) -> QuantisedNets:
    codes = Codes.of(given)
    first, second = (_quantise_net(nets, index, given, codes) for index in range(2))
    return QuantisedNets(codes, (first, second))


def _quantise_net(nets: Nets, index: int, given: Tensor, codes: Codes) -> tuple[_Layer, ...]:
    layers: list[_Layer] = []
    value, last = given, len(nets.weights) - 1
    for place, (weights, biases) in enumerate(zip(nets.weights, nets.biases, strict=True)):
        weight, bias = weights[index].double().cpu().numpy(), biases[index, 0].double().cpu().numpy()
        value = functional.leaky_relu(torch.addmm(biases[index], value, weights[index]), LEAK)
        output = None if place == last else Codes.of(value)
        layers.append(_quantise_layer(weight, bias, codes, output))
        codes = output or codes
    return tuple(layers)


def _quantise_layer(
    weight: NDArray[np.float64], bias: NDArray[np.float64], read: Codes, output: Codes | None
) -> _Layer:
    # An output that hardly depends on its inputs has a scale by its bias, which has to fit 32 bits in its unit.
    least = np.maximum(np.abs(bias) / (read.scale * LARGEST_BIAS), LEAST_SCALE)
    scales = np.maximum(np.abs(weight).max(axis=0) / WEIGHT_LIMIT, least).astype(np.float32)
    return _Layer(
        np.rint(weight / scales).astype(np.int8),
        scales,
        np.rint(bias / (np.float64(np.float32(read.scale)) * scales)).astype(np.int32),
        output,
    )
