"""An independent judge of generated pictures: a small convolutional classifier."""

from torch import Tensor, nn

__all__ = ["Classifier"]


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
                nn.BatchNorm2d(after),
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
