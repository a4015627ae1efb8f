"""A discriminator of patches, for an adversarial loss."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["PatchDiscriminator"]


class PatchDiscriminator(nn.Module):
    """Convolutions that judge overlapping patches of an image, every weight of spectral norm 1.

    Source: Isola et al. (CVPR 2017), PatchGAN; Miyato et al. (ICLR 2018), spectral normalisation, in place of the
    former's batch normalisation.
    """

    def __init__(self, *, channels: int, width: int, stages: int) -> None:
        """`channels` of the images, `width` of the first stage; every one of `stages` halves the size."""
        super().__init__()
        widths = [width * min(2**stage, 8) for stage in range(stages)]
        layers: list[nn.Module] = []
        for before, after in pairwise([channels, *widths]):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, `(N, 1, h, w)`, above 0 where a patch of images `(N, C, H, W)` looks real."""
        logits: Tensor = self.layers(images)
        return logits
