"""Per-dimension affine normalisation that starts from the statistics of a batch."""

import torch
from torch import Tensor, nn

from iin_training.flows.base import FlowBlock

__all__ = ["ActNorm"]

MIN_STD = 1e-3  # a dimension quieter than this is scaled as if it were this loud, so exp() stays finite


class ActNorm(FlowBlock):
    """`y = (z + shift) * exp(log_scale)`, initialised to give zero mean and unit variance.

    Source: Kingma and Dhariwal, Glow (NeurIPS 2018), section 3.1.
    """

    def __init__(self, size: int) -> None:
        """`size` is D, the number of dimensions."""
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.zeros(size))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y = (z + self.shift) * self.log_scale.exp()
        return y, self.log_scale.sum().expand(z.shape[0])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        z = y * (-self.log_scale).exp() - self.shift
        return z, (-self.log_scale.sum()).expand(y.shape[0])

    @torch.no_grad()
    def initialize(self, batch: Tensor) -> None:
        """Set shift and scale from `batch`, `(N, D)` with N >= 2."""
        if batch.shape[0] < 2:
            raise ValueError(
                f"batch: expected at least 2 rows to measure a variance, got {batch.shape[0]}; "
                "initialise with a training batch"
            )
        std, mean = torch.std_mean(batch, dim=0)
        self.shift.copy_(-mean)
        self.log_scale.copy_(-std.clamp_min(MIN_STD).log())
