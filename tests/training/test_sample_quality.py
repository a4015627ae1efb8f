"""Samples through T are as near to real pictures as those are to each other, on a model that is known to the end."""

import numpy as np
import pytest
import torch
from iin_training.data.picture_sets import PictureSet
from iin_training.flows import Flow
from iin_training.flows.actnorm import ActNorm
from iin_training.models.frozen import FrozenModel
from iin_training.run import Run
from iin_training.sample_quality import measure_samples
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


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0)], ids=str)
def test_samples_through_the_true_transform_look_real(tmp_path, value_range):
    model = FrozenModel(
        Encoder(*value_range), decoder=Decoder(*value_range), image_shape=(1, 8, 8), value_range=value_range
    )
    transform = Flow([ActNorm(2)])
    transform.initialize(CENTRE + SPREAD * torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    none = {"half": np.zeros(COUNT, np.int64)}
    data = PictureSet(
        name="halves",
        sha256="0" * 64,
        images=pictures(0),
        labels=none,
        held_out_images=pictures(1),
        held_out_labels=none,
        values={"half": ("any",)},
    )
    run = Run(tmp_path, seed=0, checkpoint_every=1, console=Console(quiet=True))
    figures = measure_samples(model, transform.eval(), data, run)
    for name in ("KID-lite0", "FD-lite0"):
        figure, reconstructed = figures[name], figures[f"{name}_reconstructed"]
        assert figure.ceiling < 0.1 * figure.floor  # real pictures; noise that T did not translate
        assert figure.value < 0.1 * figure.floor
        assert reconstructed.value < 0.1 * figure.floor
    # As far as real pictures are from others: none is compared with its own reconstruction.
    assert figures["FD-lite0_reconstructed"].value > 0.5 * figures["FD-lite0"].ceiling
