"""An independent classifier as the judge of whole sets of pictures."""

import torch
from torch import Tensor

from iin_training.evaluation import CHUNK
from iin_training.models.classifier import Classifier

__all__ = ["Sees", "share"]


class Sees:
    """A judge on whole sets of pictures, a chunk at a time."""

    def __init__(self, judge: Classifier, device: torch.device) -> None:
        """Work on `device`; `judge` is in eval mode."""
        self._judge, self._device = judge.to(device), device

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """`(N, classes)` on the CPU of images `(N, C, H, W)` anywhere."""
        return torch.cat([self._judge(part.to(self._device)).cpu() for part in images.split(CHUNK)])

    def __call__(self, images: Tensor) -> Tensor:
        """The class, `(N,)` on the CPU, seen in each image."""
        return self.logits(images).argmax(dim=1)


def share(hits: Tensor) -> float:
    """The share of booleans that are true."""
    return float(hits.double().mean())
