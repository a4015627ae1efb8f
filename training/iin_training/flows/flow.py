"""Composition of blocks, and the interpretation network T built from them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from iin_training.flows.blocks import ActNorm, DoubleCoupling, Flatten, FlowBlock, Permutation

__all__ = ["Flow", "interpretation_flow"]


class Flow(FlowBlock):
    """Blocks applied in order by `forward` and undone in reverse order by `inverse`."""

    def __init__(self, blocks: Sequence[FlowBlock]) -> None:
        """At least one block, all for vectors of the same size (`Flatten` makes them of other shapes, first)."""
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(z.shape[0])
        for block in self.blocks:
            z, log_abs_det = block(z)
            total = total + log_abs_det
        return z, total

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        total = y.new_zeros(y.shape[0])
        for block in reversed(self.blocks):
            assert isinstance(block, FlowBlock)
            y, log_abs_det = block.inverse(y)
            total = total + log_abs_det
        return y, total

    @torch.no_grad()
    def initialize(self, batch: Tensor) -> None:
        """Initialise each block on what the blocks before it make of `batch`, `(N, D)`."""
        for block in self.blocks:
            assert isinstance(block, FlowBlock)
            block.initialize(batch)
            batch, _ = block(batch)


def interpretation_flow(
    latent_shape: int | tuple[int, ...], *, blocks: int, hidden: int, depth: int, seed: int
) -> Flow:
    """The network T: `blocks` times [ActNorm, double affine coupling, fixed permutation].

    `latent_shape` is that of one latent: D or `(D,)`, or `(C, H, W)` for spatial latents, which T flattens first.
    The paper's sizes are `64, blocks=12, hidden=512, depth=3`: 26,815,488 parameters.
    Source: Esser, Rombach, Ommer (CVPR 2020), supplement A.
    """
    shape = (latent_shape,) if isinstance(latent_shape, int) else tuple(latent_shape)
    size = math.prod(shape)
    layers: list[FlowBlock] = [Flatten(shape)] if len(shape) > 1 else []
    for index in range(blocks):
        layers += [
            ActNorm(size),
            DoubleCoupling(size, hidden, depth),
            Permutation(torch.randperm(size, generator=torch.Generator().manual_seed(seed + index))),
        ]
    return Flow(layers)
