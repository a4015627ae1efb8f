"""Drawing grey pictures in colour, and measuring the colour of what comes back."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["STILL", "Augmentation", "draw", "jitter", "measure_colour", "pad_to", "random_colours"]

BRIGHTEST_PIXELS = 16


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


def pad_to(images: NDArray[np.uint8], size: int) -> Tensor:
    """Centre pictures `(N, H, W)` of 0 to 255 on a square of `size` pixels; `(N, 1, size, size)` in [0, 1]."""
    height, width = images.shape[1:]
    if height > size or width > size:
        raise ValueError(
            f"data.image_size: expected at least {max(height, width)} for pictures of {height}x{width}, got {size}"
        )
    top, left = (size - height) // 2, (size - width) // 2
    padding = ((0, 0), (top, size - height - top), (left, size - width - left))
    return torch.from_numpy(np.pad(images, padding)).unsqueeze(1).float() / 255


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


def random_colours(count: int, generator: torch.Generator) -> Tensor:
    """Colours uniform in [0, 1]^3, `(count, 3)`, as ColorMNIST is defined in the paper."""
    return torch.rand(count, 3, generator=generator)


def draw(grey: Tensor, colours: Tensor) -> Tensor:
    """Multiply `grey`, `(N, 1, S, S)` in [0, 1], by `colours`, `(N, 3)`; `(N, 3, S, S)` in [-1, 1]."""
    return 2 * grey * colours[:, :, None, None] - 1


def measure_colour(images: Tensor) -> Tensor:
    """Mean colour of each picture's brightest pixels, `(N, 3)` in [0, 1].

    `images` is `(N, 3, S, S)` in [-1, 1]. Works without knowing the grey picture underneath, so
    real, reconstructed and edited pictures are measured alike.
    """
    pixels = ((images + 1) / 2).flatten(2)
    brightest = pixels.amax(dim=1, keepdim=True).topk(BRIGHTEST_PIXELS, dim=2).indices
    return pixels.gather(2, brightest.expand(-1, pixels.shape[1], -1)).mean(dim=2)
