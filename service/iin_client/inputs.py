"""What calls take: pictures and arrays, edits, paths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from numpy.typing import ArrayLike, NDArray
from PIL import Image

__all__ = [
    "Edit",
    "Factors",
    "Fixed",
    "Input",
    "Inputs",
    "Interpolation",
    "Latent",
    "LinearWalk",
    "Output",
    "RandomWalk",
    "RawImage",
    "Replace",
    "Resample",
    "SetValue",
    "Shift",
    "Values",
    "Walk",
]


@dataclass(frozen=True, eq=False)
class RawImage:
    """One or more images as numbers in the model's range."""

    array: ArrayLike
    """Shape `(C, H, W)` for one or `(N, C, H, W)`, finite; sent as float32."""


@dataclass(frozen=True, eq=False)
class Latent:
    """One or more latents `z`, as `Interpretations.latents` holds them."""

    array: ArrayLike
    """Shape `(D,)` for one or `(N, D)`; `(C', H', W')` or `(N, C', H', W')` for spatial latents; finite."""


@dataclass(frozen=True, eq=False)
class Factors:
    """One or more factor vectors `z~`, as `Interpretations.factors` holds them."""

    array: ArrayLike
    """Shape `(D,)` for one or `(N, D)`, finite; sent as float32."""


Input: TypeAlias = str | Path | bytes | Image.Image | RawImage | Latent | Factors
"""A picture (path, bytes of a PNG, JPEG or WebP file, or Pillow image), or arrays of one or more items.

Rotation marked in EXIF is applied to every picture, Pillow images included.
"""

Inputs: TypeAlias = Input | Sequence[Input]
"""One input or several; the items of all of them count in order."""

Values: TypeAlias = Sequence[float] | NDArray[Any]
"""Numbers, one a dimension of a factor, as `Model.split` gives them for an item."""


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
    values: Values
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
    direction: Values
    """As many finite values as the factor has dimensions, not all zero; its length does not matter."""
    distance: float
    """Finite, in standard deviations of the prior; may be negative."""


Edit: TypeAlias = Replace | SetValue | Resample | Shift
"""One change of one factor."""


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
    direction: Values
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

Output: TypeAlias = Literal["png", "jpeg", "webp", "raw", "none"]
"""Files of 8 bits a channel (PNG and WebP exact, JPEG smaller), float32 numbers in the model's range, or no images."""

Fixed: TypeAlias = Mapping[str, Input | Values]
"""By factor: one item whose factor is taken over, or the values themselves."""
