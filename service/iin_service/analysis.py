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
    """Of some factors and N items (Esser, Rombach, Ommer, CVPR 2020, section 4).

    The draws have numbers below `total`: first all of one factor and item, then of the next item, then factor.
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
        # Of a factor and an item: the sums over its draws of what `_response` says, and of the squares. The draws
        # themselves would be as many times as large.
        self._sums = np.zeros((2, len(factors) * len(items), before.shape[1] + 2))

    def drawn(self, numbers: range) -> Array:
        """Factor vectors `(n, D)`: of each draw its item's, with its factor drawn anew."""
        pair, draw = np.divmod(numbers, self._draws)
        place, item = np.divmod(pair, len(self._items))
        # The same draws for every item: it responds alone as it does in company.
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
    """From means over the draws and those of the squares, `(N, classes + 2)`.

    They are of the probabilities, of the number of the most probable class, and of whether that is another.
    """
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return Response(
        factor=factor,
        mean_probabilities=mean[:, :-2].astype(np.float32),
        probability_deviations=deviation[:, :-2].astype(np.float32),
        class_deviations=deviation[:, -2],
        class_changes=mean[:, -1],
    )
