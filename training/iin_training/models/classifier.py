"""Classifiers: an independent judge of generated pictures, and one with a hidden layer to interpret."""

from torch import Tensor, nn

from iin_training.models.autoencoder import downward
from iin_training.models.batch_norm import BatchNorm

__all__ = ["Classifier", "TrunkClassifier"]


class Classifier(nn.Module):
    """Three convolutional stages and a linear layer; sees images only, never latents or factors."""

    def __init__(self, *, image_size: int, channels: int, classes: int, width: int) -> None:
        """`image_size` is S, divisible by 8; `width` is the number of channels of the first stage."""
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for after in (width, 2 * width, 4 * width):
            layers += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                BatchNorm(after),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
            before = after
        side = image_size // 8
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(before * side * side, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(N, classes)` of images `(N, C, S, S)` in [-1, 1]."""
        logits: Tensor = self.layers(images)
        return logits


class TrunkClassifier(nn.Module):
    """The autoencoder's convolutions down to a hidden layer, `trunk`, and a linear layer to the classes, `head`.

    Source: Esser, Rombach, Ommer (CVPR 2020), supplement B.
    """

    def __init__(self, *, image_size: int, channels: int, classes: int, width: int, latent_size: int) -> None:
        """`image_size` is S, a power of two >= 8; `latent_size` is D, the size of the hidden layer."""
        super().__init__()
        self.trunk = nn.Sequential(
            *downward(image_size=image_size, channels=channels, width=width, outputs=latent_size), nn.Flatten()
        )
        self.head = nn.Linear(latent_size, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(N, classes)` of images `(N, C, S, S)` in [-1, 1]."""
        logits: Tensor = self.head(self.trunk(images))
        return logits
