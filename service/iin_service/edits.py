"""Factor algebra: what each edit does to factor vectors, and draws from the prior."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from iin_bundle import FactorLayout

from iin_service.errors import InvalidInput
from iin_service.items import Given
from iin_service.stage import Array

__all__ = [
    "LEAST_TRUNCATION",
    "Edit",
    "Purpose",
    "Replace",
    "Resample",
    "SetValue",
    "Shift",
    "change",
    "draw_prior",
]

LEAST_TRUNCATION = 0.1  # of 100 draws 8 are kept


class Purpose(IntEnum):
    """What a draw is for: each purpose gets values of its own from a seed, so a resampled sample does change."""

    SAMPLE = 0
    RESAMPLE = 1
    WALK = 2
    RESPONSE = 3


@dataclass(frozen=True)
class Replace:
    """`f <- (1 - strength) f + strength f_source`: a straight line in z~ (paper, section 4.2)."""

    source: Given
    """One item for all targets, or one for each."""
    strength: float
    """In [0, 1]."""


@dataclass(frozen=True)
class SetValue:
    """`f <- values`."""

    values: Array
    """`(size,)`."""


@dataclass(frozen=True)
class Resample:
    """`f <- temperature * e`, e ~ N(0, I) for every target."""

    seed: int
    """Target i gets the same draw from a seed in every call."""
    temperature: float
    """At least 0."""


@dataclass(frozen=True)
class Shift:
    """`f <- f + distance * direction / |direction|`."""

    direction: Array
    """`(size,)`, not zero."""
    distance: float
    """Standard deviations of the prior."""


@dataclass(frozen=True)
class Edit:
    """One change of one factor."""

    factor: str
    operation: Replace | SetValue | Resample | Shift
    field: str = "edits"
    """Path in the request, for error messages."""


def change(factors: Array, edit: Edit, layout: FactorLayout, source: Array | None = None) -> None:
    """Apply `edit` to `factors`, `(N, D)`, in place.

    `source`, `(1, D)` or `(N, D)`, are the factors that a Replace takes over.

    Raises:
        InvalidInput: where the result overflows.

    """
    where = layout.slice(edit.factor)
    before = factors[:, where]
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        match edit.operation:
            case Replace(_, strength):
                assert source is not None
                after = np.float32(1 - strength) * before + np.float32(strength) * source[:, where]
            case SetValue(values):
                after = values
            case Resample(seed, temperature):
                rows = range(len(factors))
                drawn = draw_prior(seed, rows, layout.size, temperature=temperature, purpose=Purpose.RESAMPLE)
                after = drawn[:, where]
            case Shift(direction, distance):
                unit = direction / np.linalg.norm(direction.astype(np.float64))
                after = before + (distance * unit).astype(np.float32)
    if not np.isfinite(after).all():
        raise InvalidInput(edit.field, f"values of {edit.factor} that stay finite", "an overflow", "use smaller values")
    before[:] = after


def draw_prior(
    seed: int,
    indices: Sequence[int],
    size: int,
    truncation: float | None = None,
    temperature: float = 1.0,
    purpose: Purpose = Purpose.SAMPLE,
) -> Array:
    """Standard normal vectors `(len(indices), size)` times `temperature`, each decided by purpose, seed and index.

    A counter-based generator (Philox) is keyed by seed and index, so the i-th draw of a seed does not depend on
    what else is drawn, nor on the replica. The purpose is the highest word of the counter, which no draw reaches.
    Values beyond `truncation` are drawn again from the same generator (the truncation trick of Brock, Donahue,
    Simonyan, ICLR 2019). An overflow gives infinities.
    """
    drawn = np.empty((len(indices), size), np.float32)
    philox = np.random.Philox(key=0)
    generator, start = np.random.Generator(philox), philox.state  # with another key: the state of a new generator
    start["state"]["counter"][3] = purpose
    for row, index in zip(drawn, indices, strict=True):
        start["state"]["key"][:] = seed, index
        philox.state = start
        generator.standard_normal(dtype=np.float32, out=row)
        while truncation is not None and (beyond := np.flatnonzero(np.abs(row) > truncation)).size:
            row[beyond] = generator.standard_normal(len(beyond), dtype=np.float32)
    with np.errstate(over="ignore"):
        drawn *= np.float32(temperature)
    return drawn
