"""How far sets of pictures are apart: samples through a T that is known to the end, and what was done to digits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from iin_training.data.augmentation import Augmentation
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.data.digits import load_digits
from iin_training.data.picture_sets import PictureSet
from iin_training.distances import frechet_distance, kernel_distance
from iin_training.flows import ActNorm, Flow
from iin_training.models.effnet import EfficientNetLite0
from iin_training.models.frozen import FrozenModel
from iin_training.run import Run
from iin_training.sample_quality import SIDE, _features, measure_samples
from rich.console import Console
from torch import nn

COUNT = 120
CENTRE, SPREAD = 10.0, 0.5  # of latents, so that noise which T does not translate is far from all of them


class Encoder(nn.Module):
    """The brightness of both halves, as latents about the centre."""

    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, images):
        halves = images[:, 0, 0, [0, -1]]
        return CENTRE + SPREAD * torch.logit((halves - self.low) / (self.high - self.low), eps=1e-3)


class Decoder(Encoder):
    def forward(self, latents):
        halves = torch.sigmoid((latents - CENTRE) / SPREAD) * (self.high - self.low) + self.low
        return halves.repeat_interleave(4, dim=1)[:, None, None].expand(-1, 1, 8, 8)


def pictures(seed):
    noise = np.random.default_rng(seed).standard_normal((COUNT, 2))
    halves = (255 / (1 + np.exp(-noise))).astype(np.uint8)
    return np.repeat(halves[:, None], 8, axis=1).repeat(4, axis=2)


def halves():
    none = {"half": np.zeros(COUNT, np.int64)}
    return PictureSet(
        name="halves",
        sha256="0" * 64,
        images=pictures(0),
        labels=none,
        held_out_images=pictures(1),
        held_out_labels=none,
        values={"half": ("any",)},
    )


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, seed=0, checkpoint_every=1, console=Console(quiet=True))


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0)], ids=str)
def test_samples_through_the_true_transform_look_real(run, value_range):
    model = FrozenModel(
        Encoder(*value_range), decoder=Decoder(*value_range), image_shape=(1, 8, 8), value_range=value_range
    )
    transform = Flow([ActNorm(2)])
    transform.initialize(CENTRE + SPREAD * torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    data = halves()
    figures = measure_samples(model, transform.eval(), data, run)
    for name in ("KID-lite0", "FD-lite0"):
        figure, reconstructed = figures[name], figures[f"{name}_reconstructed"]
        assert figure.ceiling < 0.1 * figure.floor  # real pictures; noise that T did not translate
        assert figure.value < 0.1 * figure.floor
        assert reconstructed.value < 0.1 * figure.floor
        assert reconstructed.ceiling == figure.ceiling
        assert reconstructed.meaning.endswith("; ceiling: of training pictures")  # not reconstructions, as elsewhere
    # As far as real pictures are from others: none is compared with its own reconstruction.
    assert figures["FD-lite0_reconstructed"].value > 0.5 * figures["FD-lite0"].ceiling


class Overflowing(Decoder):
    """A decoder with NaN in its last picture of many."""

    def forward(self, latents):
        images = super().forward(latents).clone()
        images[100:] = float("nan")
        return images


def test_pictures_that_are_no_numbers_are_told_by_the_name_of_their_set(run):
    model = FrozenModel(
        Encoder(-1.0, 1.0), decoder=Overflowing(-1.0, 1.0), image_shape=(1, 8, 8), value_range=(-1.0, 1.0)
    )
    transform = Flow([ActNorm(2)])
    transform.initialize(CENTRE + SPREAD * torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    data = replace(halves(), held_out_images=np.concatenate([pictures(1), pictures(2)]))
    with pytest.raises(ValueError, match=r"^reconstructed: expected .* finite features, .* look at .*pictures\.png"):
        measure_samples(model, transform.eval(), data, run)


class Means(nn.Module):
    """Mean of each channel."""

    def forward(self, images):
        return images.mean(dim=(2, 3))


def test_every_picture_has_its_row_whatever_the_chunks(run):
    images = torch.rand(37, 3, 4, 4)
    found = _features(images, Means(), run)
    assert (found.shape, found.dtype) == ((37, 3), np.float64)
    np.testing.assert_allclose(found, images.mean(dim=(2, 3)).numpy(), rtol=1e-6)


def test_distances_rank_real_blurred_and_noisy_digits(run):
    digits = load_digits(None, held_out=500, seed=0)
    drawn = [
        ColouredDigits(images, labels, size=32, augmentation=Augmentation()).batch(
            100, torch.Generator().manual_seed(seed)
        )[0]
        for seed, (images, labels) in enumerate(
            [(digits.images, digits.labels), (digits.held_out_images, digits.held_out_labels)]
        )
    ]
    real, other = drawn
    blurred = nn.functional.avg_pool2d(other, 3, stride=1, padding=1, count_include_pad=False)
    noisy = (other + 0.3 * torch.randn(other.shape, generator=torch.Generator().manual_seed(2))).clamp(-1, 1)
    network = EfficientNetLite0(SIDE).features
    reference, *sets = (_features(images, network, run) for images in (real, other, blurred, noisy))
    for distance in (frechet_distance, lambda a, b: kernel_distance(a, b, seed=0)):
        floor, blur, noise = (distance(reference, found) for found in sets)
        assert floor < blur < noise / 2
    # The Frechet distance of so few pictures is far from 0 even between real ones; the kernel distance is not.
    assert abs(kernel_distance(reference, sets[0], seed=0)) < kernel_distance(reference, sets[1], seed=0) / 3
