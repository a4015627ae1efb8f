"""Pairs of coloured digits that share the digit, the colour, or everything but the colour."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from iin_training.data.augmentation import jitter
from iin_training.data.colour import draw, random_colours
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.data.digests import digest_of
from iin_training.pairs.base import PairBatch, Shares, draw_numbers, join_batches
from iin_training.pairs.labels import Classes

__all__ = ["PAIR_KINDS", "DigitPairs"]

RARE = 1 / 25  # share of less than a pair in the smallest batches of our recipes

# What the two pictures of a pair share, by kind of pair.
PAIR_KINDS: Mapping[str, Shares] = {
    "digit": Shares(frozenset({"digit"})),
    "colour": Shares(frozenset({"colour"})),
    "all_but_colour": Shares(frozenset({"colour"}), everything_but=True),
    "nothing": Shares(frozenset()),
}


class DigitPairs:
    """A source of pairs of coloured digits, in fixed shares of each kind; see `PairSource`."""

    concepts = ("digit", "colour")

    def __init__(self, data: ColouredDigits, weights: Mapping[str, float]) -> None:
        """Draw from `data`; `weights`, by name of `PAIR_KINDS`, are relative to their sum.

        Raises:
            ValueError: where weights are negative or all 0, or too few digits have another of their class.

        """
        if min(weights.values()) < 0 or not 0 < sum(weights.values()) < math.inf:
            raise ValueError(f"pairs: expected finite weights of at least 0, not all 0, got {dict(weights)}")
        self._data, self._weights = data, dict(weights)
        if weights.get("digit"):
            labels = data.labels.numpy()
            self._classes = Classes("digit", labels, range(data.classes), balanced=False, drop_single=True)

    def draw(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw pairs, see `PairSource.draw`; what does not divide goes to the commonest kind.

        Where a kind would get no pair, chance decides what each kind gets.
        """
        total = sum(self._weights.values())
        weights = {kind: weight for kind, weight in self._weights.items() if weight}
        counts = {kind: int(count * weight / total) for kind, weight in weights.items()}
        counts[max(weights, key=lambda kind: weights[kind])] += count - sum(counts.values())
        if not all(counts.values()):
            drawn = draw_numbers(count, [weight / total for weight in weights.values()], generator)
            counts = dict(zip(weights, drawn, strict=True))
        return join_batches(
            PairBatch(*self._pairs_of(kind, number, generator), PAIR_KINDS[kind].columns(number, factors))
            for kind, number in counts.items()
            if number
        )

    def check_estimable(self) -> None:
        """Refuse weights that leave a concept without pairs that share it alone, which its size is estimated from."""
        for concept in self.concepts:
            if not self._weights.get(concept):
                raise ValueError(
                    f"pairs.{concept}: expected a weight above 0, since the size of {concept} is estimated from pairs "
                    "that share it and nothing else, got 0; give it one, or set transform.sizes"
                )

    def digest(self) -> str:
        """Hexadecimal sha256 over the digits and the share of each kind, in their order."""
        total = sum(self._weights.values())
        shares = [(kind, float(weight / total)) for kind, weight in self._weights.items()]
        # Kinds too rare for a batch were in none once: what was learnt without them is not gone on with.
        drawn = ("drawn",) if any(0 < share < RARE for _, share in shares) else ()
        return digest_of("DigitPairs", self._data.digest(), *shares, *drawn)

    def _pairs_of(self, kind: str, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        first, second = self._chosen(kind, count, generator)
        grey = self._grey(first, generator)
        other_grey = grey if kind == "all_but_colour" else self._grey(second, generator)
        colours = random_colours(count, generator)
        other_colours = colours if kind == "colour" else random_colours(count, generator)
        return draw(grey, colours), draw(other_grey, other_colours)

    def _chosen(self, kind: str, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions `(count,)` of the digits on both sides, two different ones where not all but the colour is shared.

        One digit twice would share the residual as well.
        """
        if kind == "digit":
            return self._classes.draw(count, generator)
        first = torch.randint(len(self._data), (count,), generator=generator)
        if kind == "all_but_colour":
            return first, first
        second = torch.randint(len(self._data) - 1, (count,), generator=generator)
        return first, second + (second >= first)

    def _grey(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        return jitter(self._data.grey[chosen], self._data.augmentation, generator)
