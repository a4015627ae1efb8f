"""A fixed shuffle of dimensions."""

import torch
from torch import Tensor

from iin_training.flows.base import FlowBlock

__all__ = ["Permutation"]


class Permutation(FlowBlock):
    """`y = z[:, order]` with an order drawn once from `seed`; its log-determinant is zero."""

    order: Tensor
    inverse_order: Tensor

    def __init__(self, size: int, seed: int) -> None:
        """`size` is D; the same `seed` gives the same order on every machine."""
        super().__init__()
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("order", order)
        self.register_buffer("inverse_order", order.argsort())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z[:, self.order], z.new_zeros(z.shape[0])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y[:, self.inverse_order], y.new_zeros(y.shape[0])
