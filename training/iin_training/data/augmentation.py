"""Random distortion of training pictures."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["STILL", "Augmentation", "jitter"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random affine distortion of each training picture; zeros draw it as it is."""

    rotation: float = 7.0
    """Largest angle either way, degrees."""
    zoom: float = 0.07
    """Largest relative change of size either way."""
    shear: float = 0.08
    """Largest horizontal shear either way, pixels a pixel."""
    shift: float = 1.0
    """Largest displacement either way along each axis, pixels."""
    background: float = 0.0
    """Level that empty corners take, from 0 (black) to 1 (white)."""

    @property
    def nothing(self) -> bool:
        """True where pictures are left as they are."""
        return not (self.rotation or self.zoom or self.shear or self.shift)


STILL = Augmentation(rotation=0.0, zoom=0.0, shear=0.0, shift=0.0)
"""Pictures as they are."""


def jitter(grey: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Distort each of `grey`, `(N, C, H, W)` in [0, 1], by its own random affine map of pixels."""
    if how.nothing:
        return grey
    count, (height, width) = len(grey), grey.shape[-2:]

    def uniform(limit: float) -> Tensor:
        return (2 * torch.rand(count, generator=generator) - 1) * limit

    angle, scale, shear = uniform(math.radians(how.rotation)), 1 + uniform(how.zoom), uniform(how.shear)
    shift_x, shift_y = (uniform(2 * how.shift / size) for size in (width, height))
    # The grid counts each axis from -1 to 1, however long it is.
    rows = [
        torch.stack([scale * angle.cos(), (shear - scale * angle.sin()) * (height / width), shift_x], dim=1),
        torch.stack([scale * angle.sin() * (width / height), scale * angle.cos(), shift_y], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(grey.shape), align_corners=False)
    # Bilinear interpolation would dim thin strokes, and what is held out is not distorted; bicubic overshoots a little.
    moved = functional.grid_sample(grey - how.background, grid, mode="bicubic", align_corners=False)
    return (moved + how.background).clamp(0, 1)
