"""Spatial latents as vectors."""

import math

from torch import Tensor

from iin_training.flows.base import FlowBlock

__all__ = ["Flatten"]


class Flatten(FlowBlock):
    """Latents of any shape `(N, *shape)` to vectors `(N, D)` in row-major order; its log-determinant is zero.

    The first block of a flow for spatial latents: T then takes `(N, C, H, W)`, and its inverse gives it back.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """`shape` is that of one latent, for example (C, H, W)."""
        super().__init__()
        if not shape or min(shape) < 1:
            raise ValueError(f"shape: expected positive sizes, as in (C, H, W), got {shape}")
        self.shape = tuple(shape)
        self.size = math.prod(shape)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z.reshape(z.shape[0], self.size), z.new_zeros(z.shape[0])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y.reshape(y.shape[0], *self.shape), y.new_zeros(y.shape[0])
