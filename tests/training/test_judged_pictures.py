"""Figures of labelled pictures, on a model that is interpreted perfectly and on one that is not."""

import numpy as np
import pytest
import torch
from iin_bundle import FactorLayout
from iin_training.data.picture_sets import PictureSet
from iin_training.flows import ActNorm, Flow, FlowBlock
from iin_training.judged_pictures import PAIRS, judge_pictures
from iin_training.judging import SAMPLES
from iin_training.models.frozen import FrozenModel
from iin_training.run import Run
from rich.console import Console
from torch import nn

LEVELS = torch.tensor([0.0, 100.0, 200.0])  # of the upper half: who; of the lower left quarter: which skin
LAYOUT = FactorLayout.from_sizes({"residual": 1, "person": 1, "skin": 1})


class Encoder(nn.Module):
    """The lower right quarter, the upper half and the lower left quarter as three numbers."""

    def forward(self, image):
        return torch.stack([image[:, 0, 7, 7], image[:, 0, 0, 0], image[:, 0, 7, 0]], dim=1)


class Decoder(nn.Module):
    def forward(self, latent):
        image = latent[:, 1, None, None, None].expand(-1, 1, 8, 8).clone()
        image[:, :, 4:, :4] = latent[:, 2, None, None, None]
        image[:, :, 4:, 4:] = latent[:, 0, None, None, None]
        return image.clamp(-1, 1)


class Order(FlowBlock):
    """Factors in another order."""

    def __init__(self, *order):
        super().__init__()
        self.order = list(order)

    def forward(self, z):
        return z[:, self.order], z.new_zeros(len(z))

    def inverse(self, y):
        return y[:, np.argsort(self.order).tolist()], y.new_zeros(len(y))


class SkinJudge(nn.Module):
    """Sees the lower left quarter."""

    seen = 0

    def forward(self, images):
        self.seen += len(images)
        levels = (images[:, :, 7, 0] + 1) * 127.5
        return -(levels - LEVELS).abs()


def pictures(persons=3):
    """Every person in every skin, in images and held out alike."""
    person, skin = (part.flatten() for part in np.meshgrid(np.arange(persons), np.arange(3), indexing="ij"))
    images = np.zeros((len(person), 8, 8), np.uint8)
    images[:] = LEVELS.numpy()[person % 3][:, None, None]
    images[:, 4:, :4] = LEVELS.numpy()[skin][:, None, None]
    images[:, 4:, 4:] = 50
    labels = {"person": person.astype(np.int64), "skin": skin.astype(np.int64)}
    values = {"person": tuple(f"person {n}" for n in range(persons)), "skin": ("light", "medium", "dark")}
    return PictureSet(
        name="halves",
        sha256="0" * 64,
        images=images,
        labels=labels,
        held_out_images=images,
        held_out_labels=labels,
        values=values,
    )


def judged(tmp_path, *order, data=None, layout=LAYOUT, decoder=None, judge=None):
    model = FrozenModel(Encoder(), decoder=decoder or Decoder(), image_shape=(1, 8, 8), value_range=(-1.0, 1.0))
    run = Run(tmp_path, seed=0, checkpoint_every=1, console=Console(quiet=True))
    flow = Flow([ActNorm(3), Order(*order)]).eval()
    return judge_pictures(model, flow, layout, data or pictures(), {"skin": judge or SkinJudge()}, run)


def test_a_perfect_interpretation_gives_the_real_pictures(tmp_path):
    figures = judged(tmp_path, 0, 1, 2)
    for name in ("judge_skin", "reconstruction_skin", "swap_skin", "swap_person_skin_kept", "swap_residual_skin_kept"):
        assert figures[name].value == 1, name
    assert figures["swap_skin"].floor == 0  # a source has another skin
    for name in ("reconstruction_skin", "swap_person_skin_kept"):
        assert figures[name].floor == pytest.approx(1 / 3, abs=0.05)  # of pictures that have nothing to do with it
    for name in ("swap_person_error", "swap_skin_error"):
        figure = figures[name]
        assert figure.value == pytest.approx(0, abs=1e-6)
        assert figure.ceiling == pytest.approx(0, abs=1e-6)
        assert figure.floor > 0.1
    assert figures["prior_skin_agreement"].value == 1
    assert figures["prior_skin_agreement"].floor < 0.9
    assert figures["prior_skin_confidence"].ceiling > 0.99  # what it sees in reconstructions


class NeverDark(Decoder):
    """Has lost the last of three skins."""

    def forward(self, latent):
        return super().forward(torch.cat([latent[:, :2], latent[:, 2:].clamp(max=-0.5)], dim=1))


def test_a_class_that_is_never_made_is_the_rarest(tmp_path):
    assert judged(tmp_path, 0, 1, 2)["prior_skin_rarest"].value > 0.1
    assert judged(tmp_path, 0, 1, 2, decoder=NeverDark())["prior_skin_rarest"].value == 0


def test_factors_that_stand_for_something_else_are_found_out(tmp_path):
    figures = judged(tmp_path, 0, 2, 1)  # person is skin, and skin is person
    assert figures["swap_skin"].value == 0
    assert figures["swap_person_skin_kept"].value < 0.5
    for name in ("swap_person_error", "swap_skin_error"):
        assert figures[name].value > figures[name].floor


def test_without_true_pictures_nothing_is_said_of_them(tmp_path):
    twice = judged(tmp_path, 0, 1, 2, data=pictures(persons=1))  # no other person to swap with
    assert "swap_person_error" not in twice
    only_skin = FactorLayout.from_sizes({"residual": 2, "skin": 1})
    assert not any(name.endswith("_error") for name in judged(tmp_path, 0, 1, 2, layout=only_skin))


class Spare(SkinJudge):
    """Has an output that stands for nothing."""

    def forward(self, images):
        return nn.functional.pad(super().forward(images), (0, 1), value=-1000.0)


def test_an_output_that_stands_for_no_class_is_not_the_rarest(tmp_path):
    figures, spare = judged(tmp_path, 0, 1, 2), judged(tmp_path, 0, 1, 2, judge=Spare())
    assert spare["prior_skin_rarest"].value == figures["prior_skin_rarest"].value > 0.1
    assert spare["prior_skin_confidence"].floor == pytest.approx(1 / 3)


def test_the_judge_sees_every_picture_once(tmp_path):
    judge, shown = SkinJudge(), pictures()
    judged(tmp_path, 0, 1, 2, judge=judge)
    # All real ones, the targets reconstructed and with each of three factors swapped; samples, others, and others with
    # one factor of theirs.
    assert judge.seen == len(shown.held_out_images) + (1 + 3) * PAIRS + 3 * SAMPLES
