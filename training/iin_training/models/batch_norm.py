"""Batch normalisation over the whole batch, also where several processes have a part of it each."""

import torch
from torch import Tensor, nn

from iin_training.processes import average, processes

__all__ = ["BatchNorm"]


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`; while training in several processes its statistics are those of all their images together.

    torch's own SyncBatchNorm works on GPUs only. Every process must have as many images as the others.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `(N, C, H, W)`."""
        if not self.training or processes() == 1:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        wide = input.float()  # under autocast it comes in fewer digits than a variance needs
        mean = average(wide.mean(dim=(0, 2, 3)))
        centred = wide - mean[:, None, None]
        variance = average(centred.square().mean(dim=(0, 2, 3)))
        with torch.no_grad():
            count = input.numel() / input.shape[1] * processes()
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)
