"""Features of sets of pictures: chunks change nothing, and distances between them rank what was done to pictures."""

import io

import numpy as np
import pytest
import torch
from iin_training import progress
from iin_training.data.colour import Augmentation
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.data.digits import load_digits
from iin_training.distances import frechet_distance, kernel_distance
from iin_training.features import SIDE, features_of
from iin_training.models.effnet import EfficientNetLite0
from rich.console import Console
from torch import nn

QUIET = Console(quiet=True)


class Means(nn.Module):
    """Mean of each channel."""

    def forward(self, images):
        return images.mean(dim=(2, 3))


def test_every_picture_has_its_row_whatever_the_chunks():
    images = torch.rand(37, 3, 4, 4)
    found = features_of(images, Means(), console=QUIET)
    assert (found.shape, found.dtype) == ((37, 3), np.float64)
    np.testing.assert_allclose(found, images.mean(dim=(2, 3)).numpy(), rtol=1e-6)


@pytest.mark.parametrize(("silent", "shown"), [(0.0, True), (60.0, False)])
def test_progress_is_shown_once_it_takes_long(monkeypatch, silent, shown):
    monkeypatch.setattr(progress, "SILENT_SECONDS", silent)
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    features_of(torch.rand(40, 1, 2, 2), Means(), console=console)
    assert ("features" in console.file.getvalue()) == shown


def test_a_bar_that_was_never_shown_leaves_nothing_in_a_file():
    file = io.StringIO()
    features_of(torch.rand(40, 1, 2, 2), Means(), console=Console(file=file))
    assert file.getvalue() == ""


def test_what_gives_no_features_is_refused():
    with pytest.raises(ValueError, match="images: expected at least one picture, got none"):
        features_of(torch.zeros(0, 3, 4, 4), Means(), console=QUIET)
    told = r"network: expected features \(n, D\) of 2 pictures, got shape \(2, 3, 4, 4\)"
    with pytest.raises(ValueError, match=told):
        features_of(torch.zeros(2, 3, 4, 4), nn.Identity(), console=QUIET)


def test_distances_rank_real_blurred_and_noisy_digits():
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
    reference, *sets = (features_of(images, network, console=QUIET) for images in (real, other, blurred, noisy))
    for distance in (frechet_distance, lambda a, b: kernel_distance(a, b, seed=0)):
        floor, blur, noise = (distance(reference, found) for found in sets)
        assert floor < blur < noise / 2
    # The Frechet distance of so few pictures is far from 0 even between real ones; the kernel distance is not.
    assert abs(kernel_distance(reference, sets[0], seed=0)) < kernel_distance(reference, sets[1], seed=0) / 3
