"""Factor algebra: what each edit does to factor vectors, and draws from the prior."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from iin_bundle import FactorLayout
from numpy.typing import NDArray

from iin_service.errors import InvalidInput
from iin_service.stage import Array

__all__ = [
    "LEAST_TRUNCATION",
    "Edit",
    "Purpose",
    "Replace",
    "Resample",
    "SetValue",
    "Shift",
    "added",
    "apply_edit",
    "draw_prior",
]

LEAST_TRUNCATION = 0.1  # of 100 draws 8 are kept


class Purpose(IntEnum):
    """What is drawn: a seed gives each its own values, so that what is drawn anew is not what it replaces."""

    SAMPLE = 0
    RESAMPLE = 1
    WALK = 2
    RESPONSE = 3


@dataclass(frozen=True)
class Replace:
    """`f <- (1 - strength) f + strength f_source`: a straight line in z~ (paper, section 4.2)."""

    source: Array
    """Factor vectors, `(1, D)` for all targets or `(N, D)`."""
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
    """The same seed gives target i the same draw."""
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


def apply_edit(factors: Array, edit: Edit, layout: FactorLayout, field: str = "edits") -> Array:
    """`factors`, `(N, D)`, with `edit` applied; the argument is left as it is. `field` is blamed for an overflow."""
    where = layout.slice(edit.factor)
    before = factors[:, where]
    with np.errstate(over="ignore", invalid="ignore"):  # looked for below
        after = _changed(edit.operation, before, where, layout.size)
    result = factors.copy()
    result[:, where] = after
    if not np.isfinite(result).all():
        raise InvalidInput(field, f"values of {edit.factor} that stay finite", "an overflow", "use smaller values")
    return result


def _changed(operation: Replace | SetValue | Resample | Shift, before: Array, where: slice, size: int) -> Array:
    """New values, `(N, n)` or `(n,)`, of the factor at `where` that had the values `before`, `(N, n)`."""
    match operation:
        case Replace(source, strength):
            return np.float32(1 - strength) * before + np.float32(strength) * source[:, where]
        case SetValue(values):
            return values
        case Resample(seed, temperature):
            drawn = draw_prior(seed, range(len(before)), size, temperature=temperature, purpose=Purpose.RESAMPLE)
            return drawn[:, where]
        case Shift(direction, distance):
            unit = direction / np.linalg.norm(direction.astype(np.float64))
            return before + (distance * unit).astype(np.float32)


def added(before: Array, after: Array, edit: Edit, layout: FactorLayout) -> NDArray[np.bool_]:
    """Where, `(N, D)`, `edit` gave more of the magnitude of `after`, `(N, D)`, than it kept of `before`, `(N, D)`."""
    where, result = layout.slice(edit.factor), np.zeros(after.shape, bool)
    match edit.operation:
        case Replace(_, strength):
            kept = np.float32(1 - strength) * before[:, where]
        case Shift():
            kept = before[:, where]
        case _:
            kept = np.zeros_like(before[:, where])
    with np.errstate(over="ignore"):  # more than any kept
        result[:, where] = np.abs(after[:, where] - kept) > np.abs(kept)
    return result


def draw_prior(
    seed: int,
    indices: Sequence[int],
    size: int,
    truncation: float | None = None,
    temperature: float = 1.0,
    purpose: Purpose = Purpose.SAMPLE,
) -> Array:
    """Standard normal vectors `(len(indices), size)` times `temperature`, each decided by purpose, seed and index.

    A counter-based generator (Philox) is keyed by seed and index, so the i-th draw of a seed is the same
    whatever is drawn beside it, on any replica. The purpose is the highest word of its counter, which no draw
    reaches. Values beyond `truncation` are drawn again from the same generator (the truncation trick of Brock,
    Donahue, Simonyan, ICLR 2019). An overflow gives infinities.
    """
    drawn = np.empty((len(indices), size), np.float32)
    philox = np.random.Philox(key=0)
    generator, start = np.random.Generator(philox), philox.state  # given another key, it is that of a new generator
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
