"""Factor algebra: what each edit does to factor vectors, and draws from the prior."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from iin_bundle import FactorLayout
from numpy.typing import NDArray

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
    """What is drawn: a seed gives each its own values, so that what is drawn anew is not what it replaces."""

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
    field: str = "edits"
    """Where it stands in the request, for error messages."""


def change(factors: Array, edit: Edit, layout: FactorLayout, source: Array | None = None) -> NDArray[np.bool_]:
    """Apply `edit` to `factors`, `(N, D)`, themselves; `source` has the factors of its source, `(1, D)` or `(N, D)`.

    Returns:
        Where the edit gave more of the new magnitude of its factor than it kept of the old one, `(N, n)` or `(n,)`.

    """
    where = layout.slice(edit.factor)
    values = factors[:, where]
    with np.errstate(over="ignore", invalid="ignore"):  # looked for below
        kept, given = _kept_and_given(edit.operation, values, where, layout.size, source)
        after = kept + given
    if not np.isfinite(after).all():
        raise InvalidInput(edit.field, f"values of {edit.factor} that stay finite", "an overflow", "use smaller values")
    gave_most: NDArray[np.bool_] = np.abs(given) > np.abs(kept)
    values[:] = after
    return gave_most


def _kept_and_given(
    operation: Replace | SetValue | Resample | Shift, values: Array, where: slice, size: int, source: Array | None
) -> tuple[Array, Array]:
    """What an edit keeps of the `values`, `(N, n)`, of the factor at `where`, and what it adds; `(N, n)` or less."""
    nothing = np.zeros(1, np.float32)
    match operation:
        case Replace(_, strength):
            assert source is not None
            return np.float32(1 - strength) * values, np.float32(strength) * source[:, where]
        case SetValue(new):
            return nothing, new
        case Resample(seed, temperature):
            drawn = draw_prior(seed, range(len(values)), size, temperature=temperature, purpose=Purpose.RESAMPLE)
            return nothing, drawn[:, where]
        case Shift(direction, distance):
            unit = direction / np.linalg.norm(direction.astype(np.float64))
            return values, (distance * unit).astype(np.float32)


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
