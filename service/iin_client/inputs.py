"""What a call works on: pictures, raw images, latents or factor vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from numpy.typing import ArrayLike
from PIL import Image

__all__ = ["Factors", "Input", "Inputs", "Latent", "RawImage"]


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
