"""Pretrained networks that see pictures much as people do: their features, and the distance LPIPS made of them."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from iin_training.data.fetch import Package, fetch

__all__ = ["LEAST", "PACKAGE", "FeatureNetwork", "PerceptualDistance", "fetch_weights"]

PACKAGE = Package("pip", "stlpips-pytorch==0.0.2", "a412bf901a97c942b37af57c7c63b6e5d1aebfe8d1dfc17853d4b2f878630645")
"""Has the weights."""
FILES = {net: f"stlpips_pytorch/weights/vST0.0/{net}_shift_tolerant.pth" for net in ("alex", "vgg")}
LEAST = {"alex": 21, "vgg16": 18}
"""Pixels, below which a padding by reflection would exceed what it reflects."""


class Blur(nn.Module):
    """Halve the resolution with a binomial filter of 3 x 3 pixels, after padding by reflection.

    Source: Zhang, Making convolutional networks shift-invariant again (ICML 2019).
    """

    filt: Tensor

    def __init__(self, channels: int) -> None:
        """Filter each of `channels` by itself."""
        super().__init__()
        self.channels = channels
        self.register_buffer("filt", torch.empty(channels, 1, 3, 3))

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, H, W)` to `(N, C, (H + 3) // 2, (W + 3) // 2)`."""
        padded = functional.pad(features, (2, 2, 2, 2), mode="reflect")
        return functional.conv2d(padded, self.filt, stride=2, groups=self.channels)


def _alex() -> tuple[nn.Sequential, tuple[int, ...]]:
    """Layers, and the numbers of those whose outputs are the features."""
    layers = nn.Sequential(
        nn.Conv2d(3, 64, 11, padding=2),
        Blur(64),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=1),
        Blur(64),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=1),
        Blur(192),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )
    return layers, (2, 6, 10, 12, 14)


def _vgg16() -> tuple[nn.Sequential, tuple[int, ...]]:
    """As `_alex`."""
    layers: list[nn.Module] = []
    ends: list[int] = []
    channels = 3
    for width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        if layers:
            layers += [nn.MaxPool2d(2, stride=1), Blur(channels)]
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        ends.append(len(layers) - 1)
    return nn.Sequential(*layers), tuple(ends)


def fetch_weights() -> Path:
    """The folder with the weights of both networks, downloaded on first use (64 MB) and not loaded.

    Raises:
        RuntimeError: where they cannot be downloaded.

    """
    return fetch(PACKAGE, list(FILES.values()))


def _weights(net: Literal["alex", "vgg16"]) -> dict[str, Tensor]:
    """The package's weights of one network by their names there."""
    name = FILES["vgg" if net == "vgg16" else net].rsplit("/", 1)[1]
    weights: dict[str, Tensor] = torch.load(fetch_weights() / name, map_location="cpu", weights_only=True)
    return weights


class FeatureNetwork(nn.Module):
    """Frozen convolutions of AlexNet or VGG16, trained on ImageNet, that blur before they drop pixels.

    Source: Ghildyal, Liu, Shift-tolerant perceptual similarity metric (ECCV 2022), whose weights these are (package
    stlpips-pytorch 0.0.2); the networks are those of Krizhevsky et al. (NeurIPS 2012) and Simonyan, Zisserman (ICLR
    2015).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Literal["alex", "vgg16"]) -> None:
        """Load the weights, fetched on first use (64 MB).

        Raises:
            RuntimeError: where the weights cannot be fetched.

        """
        super().__init__()
        self.net = net
        self._layers, self._ends = _alex() if net == "alex" else _vgg16()
        weights = _weights(net)
        # A layer is called net.slice2.5 there, 5 being its number among all layers.
        self._layers.load_state_dict(
            {name.split(".", 2)[2]: value for name, value in weights.items() if name.startswith("net.")}
        )
        self.register_buffer("shift", weights["scaling_layer.shift"])
        self.register_buffer("scale", weights["scaling_layer.scale"])
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor, depths: int = 5) -> list[Tensor]:
        """Features at the first `depths` of five depths, each after a ReLU.

        Args:
            images: `(N, 1, H, W)` or `(N, 3, H, W)` float32 in [-1, 1]; at least 21 pixels high and wide for `alex`,
                18 for `vgg16`. Grey is taken for three equal channels.
            depths: how many, 1 to 5; what lies deeper is not computed.

        Returns:
            Maps `(N, C, h, w)`, of 64, 192, 384, 256, 256 channels for `alex` and 64, 128, 256, 512, 512 for
            `vgg16`, the coarser the later.

        Raises:
            ValueError: where the images have another shape.

        """
        least = LEAST[self.net]
        if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < least:
            raise ValueError(
                f"images: expected (N, 1 or 3, H, W) of at least {least}x{least} pixels for {self.net}, "
                f"got {tuple(images.shape)}; resize small images first"
            )
        features = (images.expand(-1, 3, -1, -1) - self.shift) / self.scale
        found = []
        for number, layer in enumerate(self._layers):
            features = layer(features)
            if number in self._ends:
                found.append(features)
            if len(found) == depths:
                break
        return found


class PerceptualDistance(nn.Module):
    """How different two pictures look: LPIPS with shift-tolerant features, frozen.

    `sum_l mean_hw w_l . (f_l(a) - f_l(b))^2`, where f_l are features of depth l, each pixel's brought to length 1, and
    the weights w_l, at least 0, were fitted to judgements of people.
    Source: Zhang et al., The unreasonable effectiveness of deep features as a perceptual metric (CVPR 2018), eq. 1;
    Ghildyal, Liu (ECCV 2022) for these weights.
    """

    def __init__(self, net: Literal["alex", "vgg16"]) -> None:
        """Load the weights, see `FeatureNetwork`."""
        super().__init__()
        self.features = FeatureNetwork(net)
        weights = _weights(net)
        self._heads = [f"_head{depth}" for depth in range(5)]
        for depth, head in enumerate(self._heads):
            self.register_buffer(head, weights[f"lin{depth}.model.1.weight"])

    def forward(self, images_a: Tensor, images_b: Tensor) -> Tensor:
        """Distances `(N,)` of pairs of images, 0 where they are equal; differentiable in both.

        `images_a` and `images_b` are as `FeatureNetwork.forward` takes them, of one shape.
        """
        distances = torch.zeros(len(images_a), device=images_a.device)
        pairs = zip(self.features(images_a), self.features(images_b), self._heads, strict=True)
        for a, b, head in pairs:
            difference = functional.normalize(a, dim=1, eps=1e-10) - functional.normalize(b, dim=1, eps=1e-10)
            distances = distances + functional.conv2d(difference.square(), getattr(self, head)).mean(dim=(1, 2, 3))
        return distances
