"""What the guide says is refused, is refused in these words."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from iin_training.data.images import ImageArray, ImageFiles, image_folder
from iin_training.models.cut import cut
from iin_training.models.frozen import FrozenModel
from iin_training.own_model import OwnModel
from iin_training.pairs import SameLabel, Unrelated
from iin_training.pipeline import run_recipe
from iin_training.recipes import find_recipe
from iin_training.run import Run
from iin_training.stages.transform import train_transform
from rich.console import Console
from torch import nn
from torch.nn import functional

from .conftest import REFUSED

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies


def images(count=60, *, value_range=(0.0, 1.0), size=28, seed=0):
    levels = np.random.default_rng(seed).integers(0, 256, (count, size, size), dtype=np.uint8)
    return ImageArray(levels, value_range=value_range)


def pairs(concept="digit", **changed):
    return SameLabel(images(**changed), np.arange(60) % 3, concept)


class Refused:
    """What provokes each message that the guide lists, in `provoke`; `folder` is the user's repository."""

    def __init__(self, guide, folder, run_dir):
        self.guide, self.folder, self.run_dir = guide, folder, run_dir

    def run(self, *, encoder=None, decoder=None, run_dir=None, **changed):
        encoder = encoder or nn.Sequential(nn.Flatten(), nn.Linear(784, 6))
        model = FrozenModel(encoder, decoder=decoder, **self.guide.SEEN)
        recipe = OwnModel(**{"name": "refused", "model": model, "pairs": pairs(), "held_out": pairs(seed=1)} | changed)
        run_recipe(recipe, run_dir or self.run_dir, Console(quiet=True))

    def a_function(self):
        find_recipe(f"{self.folder / 'mine.py'}:nothing")

    def the_range(self):
        self.run(pairs=pairs(value_range=(-1.0, 1.0)))

    def the_shape(self):
        self.run(pairs=pairs(size=32))

    def broken_files(self):
        for number in range(20):
            (self.run_dir / f"{number}.png").write_bytes(b"no picture")
        paths = [*image_folder(self.run_dir), *image_folder(self.folder / "pictures/test")]
        ImageFiles(paths, size=(28, 28), channels=1, console=Console(quiet=True))

    def a_single_picture(self):
        SameLabel(images(5), [0, 0, 1, 1, 2], "digit")

    def other_concepts(self):
        self.run(held_out=Unrelated(images()))

    def pictures_seen(self):
        self.run(held_out=pairs())

    @torch.no_grad()
    def constant_latents(self):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 6), nn.ReLU())
        encoder[1].bias.copy_(torch.tensor([100.0] * 2 + [-1e3] * 4))  # two units always on, four never
        self.run(encoder=encoder)

    def random_latents(self):
        self.run(encoder=Forward(lambda images: functional.dropout(images.flatten(1)[:, 300:310])))

    def outside_the_range(self):
        self.run(decoder=Forward(lambda latents: 9 + 0 * latents.sum(1)[:, None, None, None].expand(-1, 1, 28, 28)))

    def no_export(self):
        self.run(
            encoder=Forward(lambda images: images.flatten(1)[:, 300:310] * (2 if images.sum().item() > 1e9 else 1))
        )

    def a_cut_through_a_block(self):
        cut(Residual(), "inner", image_shape=(1, 28, 28))

    def no_dimension(self):
        transform = self.guide.my_recipe().transform
        self.run(transform=replace(transform, size_estimator="paper"))

    def a_loss_that_explodes(self):
        transform = self.guide.my_recipe().transform
        self.run(transform=replace(transform, optimiser=replace(transform.optimiser, learning_rate=1e9)))

    def other_settings(self):
        recipe, directory = self.guide.my_recipe(), self.folder / "build/mine"
        run = Run(directory, seed=recipe.seed, checkpoint_every=1, console=Console(quiet=True))
        transform = replace(recipe.transform, blocks=1, hidden=32, depth=1)
        train_transform(transform, recipe.model, {"residual": 8, "digit": 4}, recipe.pairs, run)


class Forward(nn.Module):
    def __init__(self, forward_of):
        super().__init__()
        self.forward_of = forward_of

    def forward(self, items):
        return self.forward_of(items)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(784, 784), nn.Linear(784, 3)

    def forward(self, images):
        flat = images.flatten(1)
        return self.last(flat + self.inner(flat))


PROVOKED = dict(
    zip(
        [row[0].strip("`") for row in REFUSED],
        [name for name in vars(Refused) if name not in ("run", "__init__") and not name.startswith("__")],
        strict=True,
    )
)


@pytest.mark.parametrize("said", PROVOKED)
def test_what_is_refused_is_refused_in_these_words(guide, folder, finished, tmp_path, said):
    with pytest.raises((ValueError, RuntimeError, FloatingPointError), match=re.escape(said)):
        getattr(Refused(guide, folder, tmp_path), PROVOKED[said])()
