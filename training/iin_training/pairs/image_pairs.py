"""What sources have in common that choose pairs out of one set of images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from copy import copy
from typing import NamedTuple, Self

import torch
from iin_bundle.factors import RESIDUAL
from torch import Tensor

from iin_training.data.images import Images, check_is_images
from iin_training.pairs.base import PairBatch, Shares, check_count, check_factors, join_batches

__all__ = ["Chosen", "ImagePairs", "load_pairs"]


class Chosen(NamedTuple):
    """Pairs that share one set of factors, before their images are loaded."""

    shares: Shares
    """What each of them shares."""
    first: Tensor
    """Numbers of the first images, `(n,)`."""
    second: Tensor
    """Numbers of the second images, `(n,)`."""
    similarity: Tensor | None = None
    """As in `PairBatch`, `(n,)`; a source gives it for all of its pairs, or for none."""


class ImagePairs(ABC):
    """A source that chooses pairs of numbers of images, and then loads these images."""

    def __init__(self, images: Images, concepts: tuple[str, ...], members: Tensor) -> None:
        """Draw from `images`; `members`, `(n,)`, are the numbers of those that pairs can be of."""
        check_is_images(images)
        self.concepts = concepts
        self._images, self._members = images, members

    @abstractmethod
    def _choose(self, count: int, generator: torch.Generator) -> list[Chosen]:
        """Choose `count` pairs; some of the sets of factors may have none."""

    def draw(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw pairs, see `PairSource.draw`; those that share the residual come first, both images distorted alike."""
        check_count(count)
        check_factors(self.concepts, factors)
        chosen = [some for some in self._choose(count, generator) if len(some.first)]
        batches = []
        for alike in (True, False):
            own = [some for some in chosen if (RESIDUAL in some.shares) == alike]
            if own:
                first, second = torch.cat([some.first for some in own]), torch.cat([some.second for some in own])
                shared = torch.cat([some.shares.columns(len(some.first), factors) for some in own])
                told = [some.similarity for some in own if some.similarity is not None]
                images = load_pairs(self._images, first, second, generator, alike=alike)
                batches.append(PairBatch(*images, shared, torch.cat(told) if told else None))
        return join_batches(batches)

    def over(self, change: Callable[[Images], Images]) -> Self:
        """The same pairs of other images, see `pairs.base.over`."""
        other = copy(self)
        other._images = change(self._images)
        return other

    def drawable(self) -> Iterable[tuple[Images, Tensor]]:
        """Its images, and which of them are in pairs, see `pairs.base.drawable`."""
        return [(self._images, self._members)]


def load_pairs(
    images: Images, first: Tensor, second: Tensor, generator: torch.Generator, *, alike: bool = False
) -> tuple[Tensor, Tensor]:
    """Load the images `first` and `second`, both `(n,)`.

    `alike` distorts the two images of a pair alike, as a pair must be that shares the residual.
    """
    again = generator.clone_state() if alike else generator
    return images.load(first, generator), images.load(second, again)
