"""Paths through factors, frame by frame."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from iin_bundle import FactorLayout

from iin_service.edits import Edit, Purpose, Shift, change, draw_prior
from iin_service.stage import Array

__all__ = ["Interpolation", "LinearWalk", "RandomWalk", "Walk", "walk"]


@dataclass(frozen=True)
class Interpolation:
    """A straight line to another item (Esser, Rombach, Ommer, CVPR 2020, section 4)."""

    factors: tuple[str, ...]
    """Those that move."""


@dataclass(frozen=True)
class LinearWalk:
    """A straight line along a direction."""

    factor: str
    """The one that moves."""
    direction: Array
    """`(size,)`, not zero."""
    distance: float
    """Of the last frame, in standard deviations of the prior."""


@dataclass(frozen=True)
class RandomWalk:
    """An Ornstein-Uhlenbeck process, whose stationary distribution is the prior times `temperature`."""

    factors: tuple[str, ...]
    """Those that move."""
    seed: int
    """The same seed gives the same walk."""
    step: float
    """Time between frames, in units of the correlation time."""
    temperature: float
    """Standard deviation that the walk keeps to."""


Walk = Interpolation | LinearWalk | RandomWalk


def walk(ends: Array, path: Walk, count: int, layout: FactorLayout) -> Iterator[Array]:
    """`count` >= 2 factor vectors `(1, D)`, of which the first of `ends` is the first.

    `ends`, `(1, D)` or `(2, D)`, are the start and the destination of an interpolation.
    """
    start = ends[:1]
    match path:
        case RandomWalk(factors, seed, step, temperature):
            moves, frame = layout.mask(factors), start
            kept, noise = math.exp(-step), temperature * math.sqrt(-math.expm1(-2 * step))
            yield frame
            for index in range(1, count):
                drawn = draw_prior(seed, [index], layout.size, temperature=noise, purpose=Purpose.WALK)
                with np.errstate(over="ignore", invalid="ignore"):  # checked where the frame is decoded
                    frame = np.where(moves, np.float32(kept) * frame + drawn, frame)
                yield frame
        case Interpolation(factors):
            moves = layout.mask(factors)
            for index in range(count):
                strength = index / (count - 1)
                with np.errstate(over="ignore"):  # as above
                    line = np.float32(1 - strength) * start + np.float32(strength) * ends[1:]
                yield np.where(moves, line, start)
        case LinearWalk(factor, direction, distance):
            for index in range(count):
                shift, frame = Shift(direction, distance * index / (count - 1)), start.copy()
                change(frame, Edit(factor, shift, "linear.distance"), layout)
                yield frame
