"""ColorMNIST drawn on the fly: batches of pictures, and pairs that share a set of factors."""

from collections.abc import Mapping
from dataclasses import astuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iin_training.data.colour import Augmentation, draw, jitter, pad_to, random_colours
from iin_training.pairs.base import PairBatch
from iin_training.pairs.digests import digest_of

__all__ = ["PAIR_KINDS", "ColouredDigits", "DigitPairs", "PairBatch"]

# Which concepts the two pictures of a pair share, by kind of pair.
PAIR_KINDS: Mapping[str, frozenset[str]] = {
    "digit": frozenset({"digit"}),
    "colour": frozenset({"colour"}),
    "all_but_colour": frozenset({"digit", "residual"}),
    "nothing": frozenset(),
}


class ColouredDigits:
    """Grey digits multiplied by random colours; every draw comes from the generator it is given."""

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], *, size: int, augmentation: Augmentation
    ) -> None:
        """`images` is `(N, H, W)` of 0 to 255, `labels` `(N,)`, `size` the side of the pictures drawn."""
        self.grey = pad_to(images, size)
        self.labels = torch.from_numpy(labels)
        self.augmentation = augmentation
        counts = np.bincount(labels)
        self._by_class = torch.from_numpy(np.argsort(labels, kind="stable"))
        self._class_size = torch.from_numpy(counts)
        self._class_start = torch.from_numpy(np.cumsum(counts) - counts)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """Number of classes, those without pictures between others included."""
        return len(self._class_size)

    def batch(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` random pictures, `(count, 3, S, S)`, and their labels, `(count,)`."""
        chosen = torch.randint(len(self), (count,), generator=generator)
        return self._draw(self._jitter(chosen, generator), generator), self.labels[chosen]

    def pairs(self, kinds: Mapping[str, int], factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw pairs: how many of each kind, for a model with `factors` in this order."""
        parts = [self._pairs_of(kind, count, generator) for kind, count in kinds.items() if count]
        shared = [
            torch.tensor([name in PAIR_KINDS[kind] for name in factors]).expand(count, -1)
            for kind, count in kinds.items()
            if count
        ]
        return PairBatch(torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts]), torch.cat(shared))

    def digest(self) -> str:
        """Hexadecimal sha256 over grey pictures, labels and augmentation."""
        return digest_of(self.grey, self.labels, *(float(limit) for limit in astuple(self.augmentation)))

    def _pairs_of(self, kind: str, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        first = torch.randint(len(self), (count,), generator=generator)
        if kind == "all_but_colour":
            grey = self._jitter(first, generator)
            return self._draw(grey, generator), self._draw(grey, generator)
        if kind == "digit":
            second = self.of_classes(self.labels[first], generator)
            greys = (self._jitter(chosen, generator) for chosen in (first, second))
            a, b = (self._draw(grey, generator) for grey in greys)
            return a, b
        second = torch.randint(len(self), (count,), generator=generator)
        if kind == "nothing":
            a, b = (self._draw(self._jitter(chosen, generator), generator) for chosen in (first, second))
            return a, b
        colours = random_colours(count, generator)
        a, b = (draw(self._jitter(chosen, generator), colours) for chosen in (first, second))
        return a, b

    def of_classes(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Positions `(n,)` of random pictures of the given classes, `(n,)`; each class must have pictures."""
        position = torch.rand(len(labels), generator=generator) * self._class_size[labels]
        return self._by_class[self._class_start[labels] + position.long()]

    def _jitter(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        return jitter(self.grey[chosen], self.augmentation, generator)

    def _draw(self, grey: Tensor, generator: torch.Generator) -> Tensor:
        return draw(grey, random_colours(len(grey), generator))


class DigitPairs:
    """A source of pairs of coloured digits, in fixed shares of each kind; see `PairSource`."""

    concepts = ("digit", "colour")

    def __init__(self, data: ColouredDigits, weights: Mapping[str, float]) -> None:
        """`weights`, by name of `PAIR_KINDS`, are relative to their sum."""
        if min(weights.values()) < 0 or not sum(weights.values()) > 0:
            raise ValueError(f"pairs: expected weights of at least 0, not all 0, got {dict(weights)}")
        self._data, self._weights = data, dict(weights)

    def draw(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw pairs, see `PairSource.draw`; what does not divide goes to the commonest kind."""
        total = sum(self._weights.values())
        counts = {kind: int(count * weight / total) for kind, weight in self._weights.items()}
        counts[max(self._weights, key=lambda kind: self._weights[kind])] += count - sum(counts.values())
        return self._data.pairs(counts, factors, generator)

    def digest(self) -> str:
        """Hexadecimal sha256 over the digits and the share of each kind, in their order."""
        total = sum(self._weights.values())
        shares = ((kind, float(weight / total)) for kind, weight in self._weights.items())
        return digest_of("DigitPairs", self._data.digest(), *shares)
