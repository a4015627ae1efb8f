"""Blocks that act within each factor alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from iin_training.flows.blocks import ActNorm, DoubleCoupling, FlowBlock, Nets, Permutation

__all__ = ["blocks_within"]


def blocks_within(sizes: Sequence[int], *, blocks: int, hidden: int, depth: int, seed: int) -> list[FlowBlock]:
    """`blocks` times [ActNorm, double affine coupling] that map every factor by itself, all of them at once.

    Each half of a coupling holds one half of every factor. In its nets, weights that would lead from one factor to
    another are zero and stay zero, since their gradients are set to zero.

    Args:
        sizes: sizes of the factors in their order; they sum to D >= 2.
        blocks: how many, at least 1.
        hidden: width of the nets' hidden layers, divided evenly among the factors of more than one dimension; a
            single dimension is only shifted and scaled.
        depth: hidden layers of each net.
        seed: of the order within each factor, another one in each block.

    """
    counts = torch.tensor(sizes)
    factor = torch.arange(len(sizes)).repeat_interleave(counts)  # of each dimension
    start = (counts.cumsum(0) - counts)[factor]  # of that factor
    odd = counts % 2
    firsts = counts // 2 + odd * (odd.cumsum(0) <= odd.sum() // 2)  # D // 2 in all, as a coupling splits
    halved = (torch.arange(len(factor)) - start >= firsts[factor]).int().argsort(stable=True)
    first, second = factor[halved].split([len(factor) // 2, (len(factor) + 1) // 2])
    # The nets of one dimension alone have no input, so hidden units would do nothing there.
    large = (counts > 1).nonzero()[:, 0] if (counts > 1).any() else torch.tensor([0])
    of_hidden = large[torch.arange(hidden) * len(large) // hidden]
    generator = torch.Generator().manual_seed(seed)
    layers: list[FlowBlock] = []
    where = torch.arange(len(factor))  # dimension of the factors at each place
    for _ in range(blocks):
        shuffled = torch.cat([torch.randperm(size, generator=generator) for size in sizes])
        wanted = (shuffled + start)[halved]
        coupling = DoubleCoupling(len(factor), hidden, depth)
        _separate(coupling.first, first, of_hidden, second)
        _separate(coupling.second, second, of_hidden, first)
        layers += [Permutation(where.argsort()[wanted]), ActNorm(len(factor)), coupling]
        where = wanted
    return [*layers, Permutation(where.argsort())]


def _separate(nets: Nets, inputs: Tensor, hidden: Tensor, outputs: Tensor) -> None:
    """Cut what leads from one factor to another, given the factor of each input, hidden unit and output."""
    layers = [inputs, *[hidden] * (len(nets.weights) - 1), outputs]
    for index, (weight, given, found) in enumerate(zip(nets.weights, layers, layers[1:], strict=False)):
        name = f"cut_{index}"
        nets.register_buffer(name, given[:, None] != found, persistent=False)  # which goes where the weights go
        weight.data.masked_fill_(nets.get_buffer(name), 0)
        weight.register_hook(lambda gradient, name=name: gradient.masked_fill(nets.get_buffer(name), 0))
