"""A small network that re-draws pictures in one of several styles."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Painter"]

WIDTH = 32  # channels at full resolution, doubled at half
BLOCKS = 3  # residual blocks at half resolution


class StyledNorm(nn.Module):
    """Instance normalisation with a scale and a shift for each style.

    Source: Dumoulin, Shlens, Kudlur, A learned representation for artistic style (ICLR 2017), eq. 5.
    """

    def __init__(self, channels: int, styles: int) -> None:
        """Start without effect, for each of `styles`."""
        super().__init__()
        self.scale = nn.Parameter(torch.ones(styles, channels))
        self.shift = nn.Parameter(torch.zeros(styles, channels))

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        """Features `(N, C, h, w)`, each in the style with its number, `(N,)`."""
        scale, shift = (given[style][:, :, None, None] for given in (self.scale, self.shift))
        return functional.instance_norm(features) * scale + shift


class Painter(nn.Module):
    """Re-draws a picture; all styles share every convolution, so what is no matter of style comes out alike in all.

    At the start it returns pictures in grey, as they are otherwise.
    Source: after Johnson, Alahi, Fei-Fei, Perceptual losses for real-time style transfer (ECCV 2016), made smaller.
    """

    def __init__(self, *, channels: int, styles: int) -> None:
        """For pictures of `channels` (1 or 3), in `styles` styles."""
        super().__init__()
        wide = 2 * WIDTH
        self._into = _convolution(channels, WIDTH, 5)
        self._down = _convolution(WIDTH, wide, 3, stride=2)
        self._blocks = nn.ModuleList(_convolution(wide, wide, 3) for _ in range(2 * BLOCKS))
        self._up = _convolution(wide, WIDTH, 3)
        self._out = _convolution(WIDTH, channels, 5)
        nn.init.zeros_(self._out.weight)
        self._norms = nn.ModuleList(
            StyledNorm(width, styles) for width in (WIDTH, wide, *(wide for _ in self._blocks), WIDTH)
        )

    def forward(self, images: Tensor, style: Tensor) -> Tensor:
        """Draw `images`, `(N, C, H, W)` in [-1, 1], in the styles numbered `style`, `(N,)`; likewise, not clipped."""
        first, second, *inner, last = self._norms
        features = functional.relu(first(self._into(images), style))
        features = functional.relu(second(self._down(features), style))
        for block in range(BLOCKS):
            change = functional.relu(inner[2 * block](self._blocks[2 * block](features), style))
            features = features + inner[2 * block + 1](self._blocks[2 * block + 1](change), style)
        # Enlarged, then convolved: transposed convolutions leave a pattern of squares.
        features = functional.interpolate(features, size=images.shape[2:])
        features = functional.relu(last(self._up(features), style))
        drawn: Tensor = images.mean(dim=1, keepdim=True) + self._out(features)
        return drawn


def _convolution(channels: int, width: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, size, stride=stride, padding=size // 2, padding_mode="reflect", bias=False)
