"""Pairs of images with the same value of an attribute."""

from collections.abc import Callable, Sequence
from copy import copy
from typing import Self

import numpy as np
import torch
from rich.console import Console

from iin_training.data.digests import digest_of
from iin_training.data.images import Images, printable
from iin_training.pairs.attribute_tables import Attributes
from iin_training.pairs.base import PairBatch, Shares, check_count, check_factors, load_pairs, split_evenly
from iin_training.pairs.classes import Classes
from iin_training.pairs.digests import images_digest

__all__ = ["SameAttribute"]


class SameAttribute:
    """Two different images with the same value of one attribute; everything else is drawn anew.

    Source: Esser, Rombach, Ommer (CVPR 2020), section 4, attributes of CelebA.
    """

    def __init__(
        self,
        images: Images,
        attributes: Attributes,
        concepts: Sequence[str] | None = None,
        *,
        balanced: bool = True,
        drop_single: bool = False,
        console: Console | None = None,
    ) -> None:
        """Join images and table by name; an image without a row, or with an empty cell, is left out there.

        Args:
            images: N images.
            attributes: as `read_attributes` gives them; files are named as the images are.
            concepts: the columns to learn, in their order; None takes all.
            balanced: draw every value as often as any other, however rare it is; False: as often as its images are.
            drop_single: leave out values of one single image instead of refusing them.
            console: shows a warning where images have no row.

        Raises:
            ValueError: where no row names an image, a column does not exist, or cannot be paired.

        """
        if isinstance(concepts, str):
            raise ValueError(f"concepts: expected a list of columns, got the string {concepts!r}; write [{concepts!r}]")
        self.concepts = tuple(attributes.columns) if concepts is None else tuple(concepts)
        unknown = [name for name in self.concepts if name not in attributes.columns]
        if unknown or not self.concepts or len(set(self.concepts)) != len(self.concepts):
            raise ValueError(
                f"concepts: expected one or more columns of the table ({', '.join(attributes.columns)}), each once, "
                f"got {', '.join(self.concepts) or 'none'}"
            )
        row_of = {file: row for row, file in enumerate(attributes.files)}
        rows = np.array([row_of.get(images.name(index), -1) for index in range(len(images))], np.int64)
        without = np.flatnonzero(rows < 0)
        if len(without) == len(rows):
            raise ValueError(
                f"attributes: expected files named as the images are, such as {images.name(0)}, got names such as "
                f"{attributes.files[0]}; give ImageFiles the folder that these names are relative to"
            )
        if len(without):
            (console or Console()).print(
                f"warning: {len(without)} of {len(rows)} images have no row in the table and are left out, such as "
                f"{printable(images.name(int(without[0])))}; its files are named such as {attributes.files[0]}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        self._images = images
        self._classes = []
        for name in self.concepts:
            column = attributes.columns[name]
            codes = np.where(rows >= 0, column.codes[rows], -1)
            self._classes.append(
                Classes(name, codes, column.values, balanced=balanced, drop_single=drop_single),
            )

    def draw(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw pairs, see `PairSource.draw`; as many of one concept as of another."""
        check_count(count)
        check_factors(self.concepts, factors)
        numbers = split_evenly(count, len(self.concepts), generator)
        chosen, shared = [], []
        for name, classes, number in zip(self.concepts, self._classes, numbers, strict=True):
            chosen.append(torch.stack(classes.draw(number, generator)))
            shared.append(Shares(frozenset({name})).columns(number, factors))
        first, second = torch.cat(chosen, dim=1)
        return PairBatch(*load_pairs(self._images, first, second, generator), torch.cat(shared))

    def over(self, change: Callable[[Images], Images]) -> Self:
        """The same pairs of other images, see `iin_training.pairs.base.over`."""
        other = copy(self)
        other._images = change(self._images)
        return other

    def digest(self) -> str:
        """Hexadecimal sha256 over images, groups of equal values, concepts and settings; not over names of values."""
        groups = (classes.digest() for classes in self._classes)
        return digest_of("SameAttribute", self.concepts, images_digest(self._images), *groups)
