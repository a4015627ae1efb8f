"""ColorMNIST drawn on the fly."""

from dataclasses import astuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iin_training.data.augmentation import Augmentation, jitter
from iin_training.data.colour import draw, pad_to, random_colours
from iin_training.data.digests import digest_of

__all__ = ["ColouredDigits"]


class ColouredDigits:
    """Grey digits multiplied by random colours; every draw comes from the generator it is given."""

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], *, size: int, augmentation: Augmentation
    ) -> None:
        """`images` is `(N, H, W)` of 0 to 255, `labels` `(N,)`, `size` the side of the pictures drawn."""
        self.grey = pad_to(images, size)
        """The digits as they are, `(N, 1, S, S)` in [0, 1], 0 is background."""
        self.labels = torch.from_numpy(labels)
        """Their classes, `(N,)` int64 from 0."""
        self.augmentation = augmentation
        """How they are distorted."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """Number of classes, those without pictures between others included."""
        return int(self.labels.max()) + 1

    def batch(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` random pictures, `(count, 3, S, S)` in [-1, 1], and their labels, `(count,)`."""
        chosen = torch.randint(len(self), (count,), generator=generator)
        grey = jitter(self.grey[chosen], self.augmentation, generator)
        return draw(grey, random_colours(count, generator)), self.labels[chosen]

    def digest(self) -> str:
        """Hexadecimal sha256 over grey pictures, labels and augmentation."""
        return digest_of(self.grey, self.labels, *(float(limit) for limit in astuple(self.augmentation)))
