"""Blocks that act within each factor alone."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from iin_training.flows.blocks import ActNorm, DoubleCoupling, FlowBlock, Nets, Permutation

__all__ = ["blocks_within"]


def blocks_within(sizes: Sequence[int], *, blocks: int, hidden: int, depth: int, seed: int) -> list[FlowBlock]:
    """`blocks` times [ActNorm, double affine coupling] that map every factor by itself, all of them at once.

    A coupling gets one half of every factor on each side. What its nets would carry from one factor to another has
    weights of zero, which no gradient changes.

    Args:
        sizes: sizes of the factors in their order; they sum to D >= 2.
        blocks: how many, at least 1.
        hidden: width of the nets' hidden layers, shared out evenly among the factors of more than one dimension; a
            single dimension is only shifted and scaled.
        depth: hidden layers of each net.
        seed: of the order within each factor, another one in each block.

    """
    factor = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))  # of each dimension
    halved = _halved(sizes)
    half = len(halved) // 2
    sides = factor[halved[:half]], factor[halved[half:]]
    # The nets of one dimension alone have no input, so hidden units would do nothing there.
    large = torch.tensor([index for index, size in enumerate(sizes) if size > 1] or [0])
    of_hidden = large[torch.arange(hidden) * len(large) // hidden]
    generator = torch.Generator().manual_seed(seed)
    layers: list[FlowBlock] = []
    where = torch.arange(len(factor))  # dimension of the factors at each place
    for _ in range(blocks):
        shuffled = torch.cat([torch.randperm(size, generator=generator) for size in sizes])
        wanted = (shuffled + _starts(sizes))[halved]
        coupling = DoubleCoupling(len(factor), hidden, depth)
        _separate(coupling.first, sides[0], of_hidden, sides[1])
        _separate(coupling.second, sides[1], of_hidden, sides[0])
        layers += [Permutation(where.argsort()[wanted]), ActNorm(len(factor)), coupling]
        where = wanted
    return [*layers, Permutation(where.argsort())]


def _starts(sizes: Sequence[int]) -> Tensor:
    """Where the factor of each dimension begins, `(D,)`."""
    return torch.tensor([0, *accumulate(sizes)][:-1]).repeat_interleave(torch.tensor(sizes))


def _halved(sizes: Sequence[int]) -> Tensor:
    """All dimensions, `(D,)`, one half of every factor before the others; the first D // 2 are as a coupling splits."""
    odd = [index for index, size in enumerate(sizes) if size % 2]
    halves = [size // 2 + (index in odd[: len(odd) // 2]) for index, size in enumerate(sizes)]
    starts = [0, *accumulate(sizes)]
    first = [torch.arange(start, start + half) for start, half in zip(starts, halves, strict=False)]
    second = [torch.arange(a + half, b) for a, b, half in zip(starts, starts[1:], halves, strict=False)]
    return torch.cat([*first, *second])


def _separate(nets: Nets, inputs: Tensor, hidden: Tensor, outputs: Tensor) -> None:
    """Cut what leads from one factor to another, given the factor of each input, hidden unit and output."""
    layers = [inputs, *[hidden] * (len(nets.weights) - 1), outputs]
    for index, (weight, given, found) in enumerate(zip(nets.weights, layers, layers[1:], strict=False)):
        name = f"cut_{index}"
        nets.register_buffer(name, given[:, None] != found, persistent=False)  # which goes where the weights go
        weight.data.masked_fill_(nets.get_buffer(name), 0)
        weight.register_hook(lambda gradient, name=name: gradient.masked_fill(nets.get_buffer(name), 0))
