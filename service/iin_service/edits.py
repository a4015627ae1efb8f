"""Factor algebra: what each edit does to factor vectors, and draws from the prior."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from iin_bundle import FactorLayout

from iin_service.errors import InvalidInput
from iin_service.stage import Array

__all__ = ["LEAST_TRUNCATION", "Edit", "Replace", "Resample", "SetValue", "Shift", "apply_edit", "draw_prior"]

LEAST_TRUNCATION = 0.1  # of 100 draws 8 are kept


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
            return np.float32(temperature) * draw_prior(seed, range(len(before)), size)[:, where]
        case Shift(direction, distance):
            unit = direction / np.linalg.norm(direction.astype(np.float64))
            return before + (distance * unit).astype(np.float32)


def draw_prior(seed: int, indices: Sequence[int], size: int, truncation: float | None = None) -> Array:
    """Standard normal vectors `(len(indices), size)`, each decided by `seed` and its index alone.

    A counter-based generator (Philox) is keyed by both, so the i-th draw of a seed is the same
    whatever is drawn beside it, on any replica. Values beyond `truncation` are drawn again from the
    same generator (the truncation trick of Brock, Donahue, Simonyan, ICLR 2019).
    """
    rows = []
    for index in indices:
        generator = np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))
        row = generator.standard_normal(size, dtype=np.float32)
        while truncation is not None and (beyond := np.flatnonzero(np.abs(row) > truncation)).size:
            row[beyond] = generator.standard_normal(len(beyond), dtype=np.float32)
        rows.append(row)
    return np.stack(rows)
