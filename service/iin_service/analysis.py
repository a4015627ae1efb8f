"""Network response analysis: what the classes of items do when a factor is drawn anew; numpy in, numpy out."""

from collections.abc import Sequence

import numpy as np
from iin_bundle import FactorLayout
from numpy.typing import NDArray

from iin_service.edits import Purpose, draw_prior
from iin_service.items import Response
from iin_service.stage import Array

__all__ = ["Analysis"]


class Analysis:
    """The response of N items to some factors (Esser, Rombach, Ommer, CVPR 2020, section 4).

    Draws are numbered from 0 to `total` - 1: by factor, then item, then draw.
    """

    def __init__(
        self,
        layout: FactorLayout,
        factors: Sequence[str],
        items: Array,
        before: Array,
        *,
        draws: int,
        seed: int,
        temperature: float,
    ) -> None:
        """`items` are factor vectors, `(N, D)`, whose class probabilities are `before`, `(N, classes)`."""
        self.total = len(factors) * len(items) * draws
        self._factors, self._items, self._classes = factors, items, before.argmax(axis=1)
        self._draws, self._seed, self._temperature = draws, seed, temperature
        self._belongs = np.stack([layout.mask([name]) for name in factors])
        # For each factor and item, sums over the draws of the values that `_response` takes, and of their squares: the
        # values themselves would need `draws` times the memory.
        self._sums = np.zeros((2, len(factors) * len(items), before.shape[1] + 2))

    def drawn(self, numbers: range) -> Array:
        """Factor vectors `(n, D)` of these draws: the item's, with the factor drawn anew."""
        pair, draw = np.divmod(numbers, self._draws)
        place, item = np.divmod(pair, len(self._items))
        # Every item gets the same draws, so its response does not depend on the others.
        how = self._items.shape[1], None, self._temperature, Purpose.RESPONSE
        noise = draw_prior(self._seed, draw.tolist(), *how)
        return np.where(self._belongs[place], noise, self._items[item])

    def add(self, numbers: range, probabilities: Array) -> None:
        """Count the class `probabilities`, `(n, classes)`, of these draws."""
        pair, winners = np.floor_divide(numbers, self._draws), probabilities.argmax(axis=1)
        values = np.column_stack([probabilities, winners, winners != self._classes[pair % len(self._items)]])
        begins = np.flatnonzero(np.diff(pair, prepend=-1))
        self._sums[:, pair[begins]] += np.add.reduceat(np.stack([values, values**2]), begins, axis=1)

    def responses(self) -> list[Response]:
        """The response to each factor, once all draws are counted."""
        means = np.split(self._sums / self._draws, len(self._factors), axis=1)
        return [_response(name, *one) for name, one in zip(self._factors, means, strict=True)]


def _response(factor: str, mean: NDArray[np.float64], square: NDArray[np.float64]) -> Response:
    """From means over the draws, `(N, classes + 2)`, of values and of their squares.

    The values are the class probabilities, the most probable class, and whether that differs from the item's.
    """
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return Response(
        factor=factor,
        mean_probabilities=mean[:, :-2].astype(np.float32),
        probability_deviations=deviation[:, :-2].astype(np.float32),
        class_deviations=deviation[:, -2],
        class_changes=mean[:, -1],
    )
