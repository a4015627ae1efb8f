"""The first stage: a variational convolutional autoencoder."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from iin_training.models.batch_norm import BatchNorm
from iin_training.models.frozen import FrozenModel

__all__ = ["Autoencoder", "downward", "freeze"]

STRETCH = 1.1


def _widths(image_size: int, width: int) -> list[int]:
    """Channels of the stages that lead down to a 2x2 map."""
    if image_size < 8 or image_size & (image_size - 1):
        raise ValueError(f"image_size: expected a power of two of at least 8, got {image_size}")
    return [width * 2**stage for stage in range(image_size.bit_length() - 2)]


def downward(*, image_size: int, channels: int, width: int, outputs: int) -> list[nn.Module]:
    """Layers from images `(N, channels, S, S)` to `(N, outputs, 1, 1)`, every stage of half the size."""
    widths = _widths(image_size, width)
    layers: list[nn.Module] = []
    for before, after in pairwise([channels, *widths]):
        layers += [
            nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False),
            BatchNorm(after),
            nn.LeakyReLU(0.2),
        ]
    return [*layers, nn.Conv2d(widths[-1], outputs, 2)]


class Autoencoder(nn.Module):
    """Stride-2 4x4 convolutions down to a 2x2 map, a dense one to the posterior, a mirrored decoder.

    With `image_size=32` and `width=64` these are the reference's four stages of 64, 128, 256 and
    512 channels. Images are `(N, C, S, S)` in [-1, 1]; latents are `(N, D)`.
    Source: Esser, Rombach, Ommer (CVPR 2020), supplement B.
    """

    def __init__(self, *, image_size: int, channels: int, width: int, latent_size: int) -> None:
        """`image_size` is S, a power of two >= 8; `width` is the number of channels of the first stage."""
        super().__init__()
        widths = _widths(image_size, width)
        self.image_shape = (channels, image_size, image_size)
        self.encoder = nn.Sequential(
            *downward(image_size=image_size, channels=channels, width=width, outputs=2 * latent_size)
        )
        up: list[nn.Module] = [nn.ConvTranspose2d(latent_size, widths[-1], 2, bias=False)]
        for before, after in pairwise(reversed(widths)):
            up += [
                BatchNorm(before),
                nn.LeakyReLU(0.2),
                nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
            ]
        up += [
            BatchNorm(width),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
            nn.Tanh(),
        ]
        self.decoder = nn.Sequential(*up)
        # Learned scale of the reconstruction error, so that its weight against the KL needs no tuning.
        self.log_scale = nn.Parameter(torch.zeros(()))

    @property
    def last_weight(self) -> nn.Parameter:
        """Weights of the decoder's last layer, where the gradients of losses are compared."""
        weight = self.decoder[-2].weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each `(N, D)`."""
        mean, log_variance = self.encoder(images).flatten(1).chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 4)

    def encode(self, images: Tensor) -> Tensor:
        """The latent used after training: the posterior's mean, `(N, D)`."""
        return self.posterior(images)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Images `(N, C, S, S)` in [-1, 1] from latents `(N, D)`."""
        # A plain tanh never quite reaches black and full intensity, and learns ever more slowly near them.
        images: Tensor = (STRETCH * self.decoder(latents[:, :, None, None])).clamp(-1, 1)
        return images


class _Posterior(nn.Module):
    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.posterior(images)


class _Decode(nn.Module):
    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor) -> Tensor:
        return self.model.decode(latents)


def freeze(model: Autoencoder) -> FrozenModel:
    """The trained autoencoder as the model that is interpreted: a sampling encoder and a decoder, its own weights."""
    return FrozenModel(
        _Posterior(model), decoder=_Decode(model), image_shape=model.image_shape, value_range=(-1.0, 1.0)
    )
