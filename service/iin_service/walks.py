"""Paths through factors, frame by frame."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from iin_bundle import FactorLayout

from iin_service.edits import Edit, Purpose, Replace, Shift, apply_edit, draw_prior
from iin_service.stage import Array

__all__ = ["Interpolation", "LinearWalk", "RandomWalk", "Walk", "walk"]


@dataclass(frozen=True)
class Interpolation:
    """In a straight line to another item (Esser, Rombach, Ommer, CVPR 2020, section 4)."""

    destination: Array
    """Factor vector `(1, D)` of the last frame."""
    factors: tuple[str, ...]
    """Those that move."""


@dataclass(frozen=True)
class LinearWalk:
    """In a straight line along a direction."""

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


def walk(start: Array, path: Walk, count: int, layout: FactorLayout) -> Iterator[Array]:
    """`count` >= 2 factor vectors `(1, D)` from `start`, `(1, D)`, on, which is the first."""
    match path:
        case RandomWalk():
            yield from _random_walk(start, path, count, layout)
        case Interpolation(destination, factors):
            for index in range(count):
                frame = start
                for name in factors:
                    frame = apply_edit(
                        frame, Edit(name, Replace(destination, index / (count - 1))), layout, "interpolation"
                    )
                yield frame
        case LinearWalk(factor, direction, distance):
            for index in range(count):
                shift = Shift(direction, distance * index / (count - 1))
                yield apply_edit(start, Edit(factor, shift), layout, "linear.distance")


def _random_walk(start: Array, path: RandomWalk, count: int, layout: FactorLayout) -> Iterator[Array]:
    moves = np.zeros(layout.size, bool)
    for name in path.factors:
        moves[layout.slice(name)] = True
    kept = math.exp(-path.step)
    noise = path.temperature * math.sqrt(-math.expm1(-2 * path.step))
    frame = start
    yield frame
    for index in range(1, count):
        drawn = draw_prior(path.seed, [index], layout.size, temperature=noise, purpose=Purpose.WALK)
        with np.errstate(over="ignore", invalid="ignore"):  # looked for where the frame is decoded
            moved = np.float32(kept) * frame + drawn
        frame = np.where(moves, moved, frame)
        yield frame
