"""Several sources of pairs in every batch."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Self

import torch
from torch import Tensor

from iin_training.data.digests import digest_of
from iin_training.data.images import Images
from iin_training.pairs.base import (
    PairBatch,
    PairSource,
    check_count,
    check_spelling,
    draw_numbers,
    drawable,
    fingerprint,
    is_source,
    join_batches,
    over,
)

__all__ = ["Mixed"]


class Mixed:
    """Pairs of several sources in fixed shares of every batch, in the order of the sources.

    Batches too small for a pair of each hold them in these shares on average.
    """

    def __init__(self, sources: Mapping[PairSource, float] | Sequence[tuple[PairSource, float]]) -> None:
        """Weigh the sources.

        Args:
            sources: each with its weight, relative to the sum; 0 leaves a source out, its concepts too. Several
                may speak of one concept: by the same name they mean the same.

        Raises:
            ValueError: where a source has no weight or an impossible one, or two concepts differ by letter case or
                punctuation only.

        """
        try:
            pairs = sources.items() if isinstance(sources, Mapping) else sources
            weighted = [(source, float(weight)) for source, weight in pairs]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"sources: expected each with its weight, as in Mixed([(first, 2.0), (second, 1.0)]), got: {error}"
            ) from error
        if others := [type(source).__name__ for source, _ in weighted if not is_source(source)]:
            raise ValueError(f"sources: expected sources of pairs, such as Unrelated(images), got {', '.join(others)}")
        weights = [weight for _, weight in weighted]
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
            raise ValueError(f"sources: expected finite weights of at least 0, not all 0, got {weights or 'none'}")
        self._sources = [(source, weight / sum(weights)) for source, weight in weighted if weight > 0]
        self.concepts = tuple(dict.fromkeys(name for source, _ in self._sources for name in source.concepts))
        check_spelling(self.concepts, "sources")

    @property
    def sources(self) -> tuple[PairSource, ...]:
        """Those that are not left out, in their order."""
        return tuple(source for source, _ in self._sources)

    def draw(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw pairs, see `PairSource.draw`; each source gives its share, rounded so that they sum to `count`.

        Where a share rounds to no pair, chance decides what each source gives.
        """
        check_count(count)
        shares = [share for _, share in self._sources]
        numbers = _round_shares(count, shares)
        if not all(numbers):
            numbers = draw_numbers(count, shares, generator)
        parts = [(source, number) for (source, _), number in zip(self._sources, numbers, strict=True) if number]
        return join_batches(source.draw(number, factors, generator) for source, number in parts)

    def over(self, change: Callable[[Images], Images]) -> Self | None:
        """The same pairs of other images; None where one of the sources cannot say which they are."""
        other = copy(self)
        other._sources = []
        for source, share in self._sources:
            if (moved := over(source, change)) is None:
                return None
            other._sources.append((moved, share))
        return other

    def drawable(self) -> Iterator[tuple[Images, Tensor]]:
        """The images of each source: one that cannot say does not hide the others, see `pairs.base.drawable`."""
        for source in self.sources:
            yield from drawable(source)

    def digest(self) -> str:
        """Hexadecimal sha256 over the `fingerprint` and share of each source, in their order."""
        return digest_of("Mixed", *((fingerprint(source), share) for source, share in self._sources))


def _round_shares(count: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `count`, each the share of it rounded down or up (largest remainders first)."""
    numbers = [math.floor(count * share) for share in shares]
    remainders = [count * share - number for share, number in zip(shares, numbers, strict=True)]
    largest = sorted(range(len(shares)), key=lambda part: (-round(remainders[part], 9), part))
    for part in largest[: count - sum(numbers)]:
        numbers[part] += 1
    return numbers
