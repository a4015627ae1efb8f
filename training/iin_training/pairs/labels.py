"""Pairs of images with the same class label, and pairs that share nothing."""

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iin_training.data.images import Images
from iin_training.pairs.base import PairBatch, Shares, check_concept, check_count, load_pairs
from iin_training.pairs.classes import Classes, codes_of
from iin_training.pairs.digests import digest_of, images_digest

__all__ = ["SameLabel", "Unrelated"]


class SameLabel:
    """Two different images of one class; everything else is drawn anew.

    Source: Esser, Rombach, Ommer (CVPR 2020), section 3.2, pairs from class labels.
    """

    def __init__(
        self,
        images: Images,
        labels: Sequence[Any] | NDArray[Any] | Tensor,
        concept: str,
        *,
        balanced: bool = True,
        drop_single: bool = False,
    ) -> None:
        """Group the images by label.

        Args:
            images: N images.
            labels: label of each, `(N,)` numbers or strings; None or NaN leaves the image out.
            concept: name of what images with the same label share.
            balanced: draw every class as often as any other, however rare it is; False: as often as its images are.
            drop_single: leave out classes of one single image instead of refusing them.

        Raises:
            ValueError: where labels and images differ in number, a class has a single image, or there are fewer
                than two classes or too few pairs.

        """
        listed: list[Any] = labels.tolist() if isinstance(labels, np.ndarray | Tensor) else list(labels)
        if len(listed) != len(images):
            raise ValueError(
                f"labels: expected one for each of the {len(images)} images, got {len(listed)}; "
                "where broken files were left out, ImageFiles.kept says which labels remain"
            )
        if any(isinstance(label, list) for label in listed[:1]):
            raise ValueError("labels: expected one number or string an image, (N,), got an array of more dimensions")
        self.concepts = (check_concept(concept),)
        self._images = images
        self._classes = Classes(concept, *codes_of(listed), balanced=balanced, drop_single=drop_single)

    def draw(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw pairs, see `PairSource.draw`."""
        check_count(count)
        shared = Shares(frozenset(self.concepts)).columns(count, factors)
        return PairBatch(*load_pairs(self._images, *self._classes.draw(count, generator), generator), shared)

    def over(self, change: Callable[[Images], Images]) -> Self:
        """The same pairs of other images, see `iin_training.pairs.base.over`."""
        other = copy(self)
        other._images = change(self._images)
        return other

    def digest(self) -> str:
        """Hexadecimal sha256 over images, groups of equal labels, concept and settings; not over names of labels."""
        return digest_of("SameLabel", self.concepts, images_digest(self._images), self._classes.digest())


class Unrelated:
    """Two different images, drawn at random, that share nothing: alone, this is the unsupervised loss."""

    concepts: tuple[str, ...] = ()

    def __init__(self, images: Images) -> None:
        """Draw from at least two `images`."""
        if len(images) < 2:
            raise ValueError(f"images: expected at least 2, got {len(images)}")
        self._images = images

    def draw(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw pairs, see `PairSource.draw`."""
        check_count(count)
        first = torch.randint(len(self._images), (count,), generator=generator)
        second = torch.randint(len(self._images) - 1, (count,), generator=generator)
        second += second >= first
        shared = Shares(frozenset()).columns(count, factors)
        return PairBatch(*load_pairs(self._images, first, second, generator), shared)

    def over(self, change: Callable[[Images], Images]) -> Self:
        """The same pairs of other images, see `iin_training.pairs.base.over`."""
        other = copy(self)
        other._images = change(self._images)
        return other

    def digest(self) -> str:
        """Hexadecimal sha256 over the images and how they are loaded."""
        return digest_of("Unrelated", images_digest(self._images))
