"""Pairs from labels: same class, same but for one concept, nothing in common."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from iin_bundle.factors import RESIDUAL
from numpy.typing import NDArray
from torch import Tensor

from iin_training.data.digests import digest_of, images_digest
from iin_training.data.images import Images
from iin_training.pairs.base import PairBatch, Shares, check_count, load_pairs, over_images
from iin_training.pairs.classes import Classes

__all__ = ["SameLabel", "Unrelated", "Variants"]


class _Grouped:
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
        listed: list[Any] = labels.tolist() if isinstance(labels, np.ndarray | Tensor) else list(labels)
        if len(listed) != len(images):
            raise ValueError(
                f"{field}: expected one for each of the {len(images)} images, got {len(listed)}; "
                f"where broken files were left out, ImageFiles.kept says which {field} remain"
            )
        if any(isinstance(label, list) for label in listed[:1]):
            raise ValueError(f"{field}: expected one number or string an image, (N,), got an array of more dimensions")
        numbers: dict[Any, int] = {}
        # A NaN differs from itself.
        codes = [-1 if label is None or label != label else numbers.setdefault(label, len(numbers)) for label in listed]
        of_images, values = np.array(codes, np.int64), list(numbers)
        self.concepts = (concept,)
        self._images, self._shares = images, Shares(frozenset(self.concepts), everything_but)
        self._classes = Classes(concept, of_images, values, kind=kind, balanced=balanced, drop_single=drop_single)

    def draw(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw pairs, see `PairSource.draw`."""
        check_count(count)
        shared = self._shares.columns(count, factors)
        chosen = self._classes.draw(count, generator)
        return PairBatch(*load_pairs(self._images, *chosen, generator, alike=RESIDUAL in self._shares), shared)

    over = over_images

    def drawable(self) -> Iterable[tuple[Images, Tensor]]:
        """Its images, and which of them are in pairs, see `pairs.base.drawable`."""
        return [(self._images, self._classes.members)]

    def digest(self) -> str:
        """Hexadecimal sha256 over images, groups of equal labels, concept and settings; not over names of labels."""
        name = "Variants" if self._shares.everything_but else "SameLabel"
        return digest_of(name, self.concepts, images_digest(self._images), self._classes.digest())


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
            labels: label of each, `(N,)` numbers or strings; None or NaN leaves the image out.
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
            groups: what each is a variant of, `(N,)` numbers or strings; None or NaN leaves the image out.
            concept: name of what the images of a group differ in.
            drop_single: leave out groups of one single image instead of refusing them.

        Raises:
            ValueError: as `SameLabel`, of `groups`.

        """
        super().__init__("groups", images, groups, concept, everything_but=True, kind="group", drop_single=drop_single)


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

    over = over_images

    def drawable(self) -> Iterable[tuple[Images, Tensor]]:
        """Its images, and which of them are in pairs, see `pairs.base.drawable`."""
        return [(self._images, torch.arange(len(self._images)))]

    def digest(self) -> str:
        """Hexadecimal sha256 over the images and how they are loaded."""
        return digest_of("Unrelated", images_digest(self._images))
