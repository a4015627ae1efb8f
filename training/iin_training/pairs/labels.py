"""Pairs from labels: same class, same but for one concept, nothing in common."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iin_training.data.digests import digest_of, images_digest
from iin_training.data.images import Images
from iin_training.pairs.base import MIN_PAIRS, Shares, check_concept
from iin_training.pairs.image_pairs import Chosen, ImagePairs

__all__ = ["Classes", "SameLabel", "Unrelated", "Variants"]

NAMED = 5  # values that a message names


class Classes:
    """Groups of images that have one value of a concept in common."""

    def __init__(
        self,
        concept: str,
        codes: NDArray[np.int64],
        values: Sequence[Any],
        *,
        kind: str = "value",
        balanced: bool = True,
        drop_single: bool = False,
    ) -> None:
        """Group images by their codes.

        Args:
            concept: name of the concept, for messages too.
            codes: value of each image, `(N,)` from 0; -1 leaves the image out.
            values: name of each code, for messages.
            kind: what messages call that which a code stands for.
            balanced: every value as often as any other; False: as often as its images are.
            drop_single: leave out values that one single image has, which can be in no pair.

        Raises:
            ValueError: where a value has a single image, or the concept fewer than two values or too few pairs.

        """
        check_concept(concept)
        sizes = np.bincount(codes[codes >= 0], minlength=len(values))
        single = np.flatnonzero(sizes == 1)
        if len(single) and not drop_single:
            named = ", ".join(repr(values[code]) for code in single[:NAMED])
            more = f" and {len(single) - NAMED} more" if len(single) > NAMED else ""
            raise ValueError(
                f"{concept}: expected at least two images of each {kind}, got one of {named}{more}; add images, "
                f"merge {kind}s, or set drop_single to leave these images out"
            )
        kept = np.flatnonzero(sizes > 1)
        pairs = sum(math.comb(int(size), 2) for size in sizes[kept])
        if len(kept) < 2 or pairs < MIN_PAIRS:
            raise ValueError(
                f"{concept}: expected at least two {kind}s with two images or more, and {MIN_PAIRS} different pairs "
                f"in all, got {len(kept)} {kind}s and {pairs} pairs from {int((codes >= 0).sum())} labelled images; "
                "label more images, or leave the concept out"
            )
        order = np.argsort(codes, kind="stable")
        self.members = torch.from_numpy(order[np.isin(codes[order], kept)])
        """Numbers of the images that are in a group, `(n,)`, group by group."""
        self._sizes = torch.from_numpy(sizes[kept])
        self._starts = self._sizes.cumsum(0) - self._sizes
        self._class_at = torch.arange(len(kept)).repeat_interleave(self._sizes)
        self._balanced = balanced

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Numbers `(count,)` of the first and the second image of random pairs, two different images of one value."""
        if self._balanced:
            chosen = torch.randint(len(self._sizes), (count,), generator=generator)
        else:
            chosen = self._class_at[torch.randint(len(self._class_at), (count,), generator=generator)]
        sizes, starts = self._sizes[chosen], self._starts[chosen]
        first = _below(sizes, generator)
        second = _below(sizes - 1, generator)
        second += second >= first
        return self.members[starts + first], self.members[starts + second]

    def digest(self) -> str:
        """Hexadecimal sha256 over which images are grouped, and how groups are drawn."""
        return digest_of(self.members, self._sizes, bool(self._balanced))


def _below(limits: Tensor, generator: torch.Generator) -> Tensor:
    """A random whole number from 0 to below each limit."""
    return (torch.rand(len(limits), generator=generator, dtype=torch.float64) * limits).long()


class _Grouped(ImagePairs):
    """Two different images of one group, which share the concept alone or everything but it."""

    def __init__(
        self,
        field: str,
        images: Images,
        labels: Sequence[Any] | NDArray[Any] | Tensor,
        concept: str,
        *,
        everything_but: bool = False,
        kind: str = "value",
        balanced: bool = True,
        drop_single: bool,
    ) -> None:
        """Group by label, see `SameLabel`; messages call the labels `field`, and one of them `kind`."""
        if isinstance(labels, str | Mapping) or not isinstance(labels, Iterable):
            raise ValueError(
                f"{field}: expected a list or an array with one for each image, in the order of the images, got "
                f"{type(labels).__name__}"
            )
        listed: list[Any] = labels.tolist() if isinstance(labels, np.ndarray | Tensor) else list(labels)
        listed = [label.tolist() if isinstance(label, np.ndarray | Tensor) else label for label in listed]
        if len(listed) != len(images):
            raise ValueError(
                f"{field}: expected one for each of the {len(images)} images, got {len(listed)}; "
                f"where broken files were left out, ImageFiles.kept says which {field} remain"
            )
        if others := [label for label in listed if not isinstance(label, Hashable)]:
            given = "an array of more dimensions" if isinstance(others[0], list) else f"{others[0]!r} among them"
            raise ValueError(f"{field}: expected one number or string an image, (N,), got {given}")
        numbers: dict[Any, int] = {}
        codes = [-1 if _is_missing(label) else numbers.setdefault(label, len(numbers)) for label in listed]
        of_images, values = np.array(codes, np.int64), list(numbers)
        if twice := [text for text, times in Counter(map(str, values)).items() if times > 1]:
            raise ValueError(
                f"{field}: expected numbers or texts, not both, got {twice[0]} as either; convert all of them with str"
            )
        self._classes = Classes(concept, of_images, values, kind=kind, balanced=balanced, drop_single=drop_single)
        self._shares = Shares(frozenset({concept}), everything_but)
        super().__init__(images, (concept,), self._classes.members)

    def _choose(self, count: int, generator: torch.Generator) -> list[Chosen]:
        return [Chosen(self._shares, *self._classes.draw(count, generator))]

    def digest(self) -> str:
        """Hexadecimal sha256 over images, groups of equal labels, concept and settings; not over names of labels."""
        name = "Variants" if self._shares.everything_but else "SameLabel"
        return digest_of(name, self.concepts, images_digest(self._images), self._classes.digest())


def _is_missing(label: Any) -> bool:
    """Whether a label is None, or NaN or NaT, which differ from themselves, or the NA of pandas."""
    try:
        return label is None or bool(label != label)
    except TypeError:  # NA is neither equal to itself nor different
        return True


class SameLabel(_Grouped):
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
            labels: label of each, `(N,)` numbers or strings; None, NaN or NA leaves the image out.
            concept: name of what images with the same label share.
            balanced: draw every class as often as any other, however rare it is; False: as often as its images are.
            drop_single: leave out classes of one single image instead of refusing them.

        Raises:
            ValueError: where labels and images differ in number, a class has a single image, or there are fewer
                than two classes or too few pairs.

        """
        super().__init__("labels", images, labels, concept, balanced=balanced, drop_single=drop_single)


class Variants(_Grouped):
    """Two images of one group, whose images differ in one concept and in nothing else; both are augmented alike.

    Where there are such groups (one object in several colours, one scene by day and by night), they say more of the
    concept than its labels: whatever differs within a group belongs into the concept's factor.
    Source: Esser, Rombach, Ommer (CVPR 2020), section 3.2, pairs that share everything but one factor.
    """

    def __init__(
        self,
        images: Images,
        groups: Sequence[Any] | NDArray[Any] | Tensor,
        concept: str,
        *,
        drop_single: bool = False,
    ) -> None:
        """Group the images.

        Args:
            images: N images.
            groups: what each is a variant of, `(N,)` numbers or strings; None, NaN or NA leaves the image out.
            concept: name of what the images of a group differ in.
            drop_single: leave out groups of one single image instead of refusing them.

        Raises:
            ValueError: as `SameLabel`, of `groups`.

        """
        super().__init__("groups", images, groups, concept, everything_but=True, kind="group", drop_single=drop_single)


class Unrelated(ImagePairs):
    """Two different images, drawn at random, that share nothing: alone, this is the unsupervised loss."""

    def __init__(self, images: Images) -> None:
        """Draw from at least two `images`."""
        if len(images) < 2:
            raise ValueError(f"images: expected at least 2, got {len(images)}")
        super().__init__(images, (), torch.arange(len(images)))

    def _choose(self, count: int, generator: torch.Generator) -> list[Chosen]:
        first = torch.randint(len(self._images), (count,), generator=generator)
        second = torch.randint(len(self._images) - 1, (count,), generator=generator)
        second += second >= first
        return [Chosen(Shares(frozenset()), first, second)]

    def digest(self) -> str:
        """Hexadecimal sha256 over the images and how they are loaded."""
        return digest_of("Unrelated", images_digest(self._images))
