"""Which images the pairs of a source can be of."""

from collections.abc import Iterator

import torch
from iin_bundle.factors import RESIDUAL
from torch import Tensor

from iin_training.data.digests import knows
from iin_training.data.images import Images
from iin_training.pairs.base import PairSource, over

__all__ = ["drawable"]

ROUNDS = 8  # of as many pairs as there are images; what a source draws rarely is missed all the same


def drawable(source: PairSource) -> Iterator[tuple[Images, Tensor]]:
    """Sets of images, each with the numbers `(n,)` of those that pairs of `source` can be of; none where nobody knows.

    Where the source does not say so itself, but can be moved to other images, pairs are drawn to see.
    """
    if knows(source, "drawable", "draw"):
        yield from source.drawable()  # type: ignore[attr-defined]
        return
    found: list[_Noted] = []

    def noted(images: Images) -> Images:
        found.append(_Noted(images))
        return found[-1]

    moved, generator = over(source, noted), torch.Generator().manual_seed(0)
    if moved is not None and found:
        for _ in range(ROUNDS):
            moved.draw(sum(map(len, found)), (RESIDUAL, *moved.concepts), generator)
    for one in found:
        yield one.images, one.drawn.nonzero().flatten()


class _Noted:
    """Images that are not loaded, only noted where they are asked for."""

    def __init__(self, images: Images) -> None:
        self.images, self.drawn = images, torch.zeros(len(images), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.images)

    def load(self, indices: Tensor, generator: torch.Generator | None) -> Tensor:
        self.drawn[indices] = True
        return torch.empty(len(indices), 0)

    def name(self, index: int) -> str:
        return self.images.name(index)
