"""Affine coupling of both halves of a vector."""

import torch
from torch import Tensor, nn

from iin_training.flows.base import FlowBlock

__all__ = ["DoubleCoupling"]


def _subnet(inputs: int, outputs: int, hidden: int, depth: int) -> nn.Sequential:
    """`depth` hidden layers of width `hidden` with LeakyReLU(0.01), then a linear layer."""
    layers: list[nn.Module] = []
    for width in [inputs] + [hidden] * (depth - 1):
        layers += [nn.Linear(width, hidden), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers, nn.Linear(hidden, outputs))


class DoubleCoupling(FlowBlock):
    """Two affine half-steps, `b <- b exp(s(a)) + t(a)`, then the same with the halves exchanged.

    Every dimension is changed once a block. `s` ends in tanh, so a half-step scales by at most e.
    Source: Esser, Rombach, Ommer (CVPR 2020), supplement; coupling after Dinh et al., Real NVP.
    """

    def __init__(self, size: int, hidden: int, depth: int) -> None:
        """`size` is D >= 2 (odd sizes split unevenly); `hidden`, `depth` shape the s and t nets."""
        super().__init__()
        if size < 2:
            raise ValueError(f"size: expected at least 2 dimensions to split, got {size}")
        self.split = (size // 2, size - size // 2)
        first, second = self.split
        self.s1, self.t1 = (_subnet(first, second, hidden, depth) for _ in range(2))
        self.s2, self.t2 = (_subnet(second, first, hidden, depth) for _ in range(2))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        a, b = z.split(self.split, dim=1)
        s1 = self.s1(a).tanh()
        b = b * s1.exp() + self.t1(a)
        s2 = self.s2(b).tanh()
        a = a * s2.exp() + self.t2(b)
        return torch.cat([a, b], dim=1), s1.sum(dim=1) + s2.sum(dim=1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        a, b = y.split(self.split, dim=1)
        s2 = self.s2(b).tanh()
        a = (a - self.t2(b)) * (-s2).exp()
        s1 = self.s1(a).tanh()
        b = (b - self.t1(a)) * (-s1).exp()
        return torch.cat([a, b], dim=1), -s1.sum(dim=1) - s2.sum(dim=1)
