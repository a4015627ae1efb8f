"""Changes of one factor, as `Client.edit` takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from iin_client.inputs import Input

__all__ = ["Edit", "Replace", "Resample", "SetValue", "Shift"]


@dataclass(frozen=True, eq=False)
class Replace:
    """Moves a factor towards that of a source: `f <- (1 - strength) f + strength f_source`."""

    factor: str
    """Name of the factor, one of `Model.factors`."""
    source: Input
    """1 item, used for every target, or N items, one a target."""
    strength: float = 1.0
    """In [0, 1]; 0 leaves the factor, 1 replaces it."""


@dataclass(frozen=True, eq=False)
class SetValue:
    """Gives a factor fixed values: `f <- values`."""

    factor: str
    """Name of the factor, one of `Model.factors`."""
    values: Sequence[float]
    """As many finite values as the factor has dimensions, in standard deviations of the prior."""


@dataclass(frozen=True, eq=False)
class Resample:
    """Draws a factor anew for every target: `f <- temperature * e` with `e ~ N(0, I)`."""

    factor: str
    """Name of the factor, one of `Model.factors`."""
    seed: int = 0
    """In [0, 2^64); the i-th target of a seed gets the same values in every call."""
    temperature: float = 1.0
    """At least 0 and finite; below 1 stays nearer to the typical."""


@dataclass(frozen=True, eq=False)
class Shift:
    """Moves a factor along a direction: `f <- f + distance * direction / |direction|`."""

    factor: str
    """Name of the factor, one of `Model.factors`."""
    direction: Sequence[float]
    """As many finite values as the factor has dimensions, not all zero; its length does not matter."""
    distance: float
    """Finite, in standard deviations of the prior; may be negative."""


Edit: TypeAlias = Replace | SetValue | Resample | Shift
"""One change of one factor."""
