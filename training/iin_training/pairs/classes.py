"""Images grouped by the value of one concept, and random pairs of one group."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iin_training.data.digests import digest_of
from iin_training.pairs.base import MIN_PAIRS, check_concept

__all__ = ["Classes"]

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
