"""Drawing grey pictures in colour, and measuring the colour of what comes back."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["draw", "measure_colour", "pad_to", "random_colours"]

BRIGHTEST_PIXELS = 16


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
