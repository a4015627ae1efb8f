"""Pairs of images with the same value of an attribute."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from iin_training.data.digests import digest_of, images_digest
from iin_training.data.images import ImageFiles, Images, names_of, printable
from iin_training.pairs.attribute_tables import Attributes
from iin_training.pairs.base import Shares, split_evenly
from iin_training.pairs.image_pairs import Chosen, ImagePairs
from iin_training.pairs.labels import Classes
from iin_training.pairs.user_files import spelling_difference

__all__ = ["SameAttribute"]


class SameAttribute(ImagePairs):
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
            console: shows a warning where images have no row, or rows no image.

        Raises:
            ValueError: where no row names an image, a column does not exist, cannot be paired, or says what another
                one says.

        """
        if not isinstance(attributes, Attributes):
            raise ValueError(
                f"attributes: expected a table as read_attributes gives it, got {type(attributes).__name__}; "
                "for a file write read_attributes(path)"
            )
        if isinstance(concepts, str):
            raise ValueError(f"concepts: expected a list of columns, got the string {concepts!r}; write [{concepts!r}]")
        names = tuple(attributes.columns) if concepts is None else tuple(concepts)
        if not names or not set(names) <= attributes.columns.keys() or len(set(names)) != len(names):
            raise ValueError(
                f"concepts: expected one or more columns of the table ({', '.join(attributes.columns)}), each once, "
                f"got {', '.join(names) or 'none'}"
            )
        rows = _joined(images, attributes, console or Console())
        codes = {name: np.where(rows >= 0, attributes.columns[name].codes[rows], -1) for name in names}
        self._classes = [
            Classes(name, of_images, attributes.columns[name].values, balanced=balanced, drop_single=drop_single)
            for name, of_images in codes.items()
        ]
        _check_apart(codes)
        super().__init__(images, names, torch.cat([classes.members for classes in self._classes]).unique())

    def _choose(self, count: int, generator: torch.Generator) -> list[Chosen]:
        numbers = split_evenly(count, len(self.concepts), generator)
        return [
            Chosen(Shares(frozenset({name})), *classes.draw(number, generator))
            for name, classes, number in zip(self.concepts, self._classes, numbers, strict=True)
        ]

    def digest(self) -> str:
        """Hexadecimal sha256 over images, groups of equal values, concepts and settings; not over names of values."""
        groups = (classes.digest() for classes in self._classes)
        return digest_of("SameAttribute", self.concepts, images_digest(self._images), *groups)


def _check_apart(codes: Mapping[str, NDArray[np.int64]]) -> None:
    """Refuse two columns that say the same in other words, as 3 and three: their values always come together."""
    names: dict[bytes, str] = {}
    for name, of_images in codes.items():
        _, first, values = np.unique(of_images, return_index=True, return_inverse=True)
        # Values numbered in the order in which they come: the same for columns that say the same.
        other = names.setdefault(first.argsort().argsort()[values].tobytes(), name)
        if other != name:
            raise ValueError(
                f"concepts: expected columns that can be told apart, got {other} and {name}, whose values always come "
                "together; name one of them in `concepts` and leave the other out"
            )


def _joined(images: Images, attributes: Attributes, console: Console) -> NDArray[np.int64]:
    """The row of each image, `(N,)`, -1 where there is none; `ValueError` where that is so for all."""
    row_of = {file: row for row, file in enumerate(attributes.files)}
    names = names_of(images)
    rows = np.array([row_of.get(name, -1) for name in names], np.int64)
    without = [name for name in names if name not in row_of]
    named = set(rows.tolist())
    known = images.left_out if isinstance(images, ImageFiles) else frozenset[str]()  # told of when they were read
    over = [file for row, file in enumerate(attributes.files) if row not in named and file not in known]
    difference = spelling_difference(without, over)
    if len(without) == len(rows):
        remedy = "the first column names the pictures; give ImageFiles the folder that its names are relative to"
        if difference:
            remedy = f"they differ in {difference} alone, so write those of the table as the images are named"
        raise ValueError(
            f"attributes: expected files named as the images are, such as {printable(names[0])}, got names "
            f"such as {attributes.files[0]}; {remedy}"
        )
    told = []
    if without:
        told.append(
            f"warning: {len(without)} of {len(rows)} images have no row in the table and are left out, such as "
            f"{printable(without[0])}; its files are named such as {(over or attributes.files)[0]}"
        )
    if over:  # where every image has its row, the table is most likely that of other images too
        told.append(
            f"{'warning' if without else 'note'}: {len(over)} of {len(attributes.files)} rows of the table name no "
            f"image here, such as {over[0]}" + (f"; names differ in {difference} alone" if difference else "")
        )
    for line in told:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return rows
