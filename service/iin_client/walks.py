"""Paths through factors, as `Client.traverse` takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from iin_client.inputs import Input

__all__ = ["Interpolation", "LinearWalk", "RandomWalk", "Walk"]


@dataclass(frozen=True, eq=False)
class Interpolation:
    """In a straight line to another item.

    Frame i of n has the factors `(1 - w) f_start + w f_destination` with `w = i / (n - 1)`.
    """

    destination: Input
    """1 item: the last frame's factors."""
    factors: Sequence[str] = ()
    """Factors that move, each at most once; none given means all."""


@dataclass(frozen=True, eq=False)
class LinearWalk:
    """In a straight line along a direction.

    Frame i of n has the factor `f_start + w * distance * direction / |direction|` with `w = i / (n - 1)`.
    """

    factor: str
    """Factor that moves."""
    direction: Sequence[float]
    """As many finite values as the factor has dimensions, not all zero; its length does not matter."""
    distance: float
    """Of the last frame, finite, in standard deviations of the prior; may be negative."""


@dataclass(frozen=True, eq=False)
class RandomWalk:
    """An Ornstein-Uhlenbeck process: `f <- a f + sqrt(1 - a^2) temperature e`, `e ~ N(0, I)`, `a = exp(-step)`.

    With temperature 1 it keeps to the prior.
    """

    factors: Sequence[str] = ()
    """Factors that move, each at most once; none given means all."""
    seed: int = 0
    """In [0, 2^64); repeats the same walk."""
    step: float = 0.1
    """Time between frames, in units of the time after which the start is forgotten; finite, above 0."""
    temperature: float = 1.0
    """Standard deviation that the walk keeps to, finite, at least 0."""


Walk: TypeAlias = Interpolation | LinearWalk | RandomWalk
"""A path through factors."""
