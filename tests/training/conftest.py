"""Training stages small enough to run in a second."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from iin_training import config
from iin_training.data import fetch
from iin_training.data.augmentation import Augmentation
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.models.autoencoder import Autoencoder, freeze
from iin_training.pairs.digits import DigitPairs
from iin_training.run import Run
from iin_training.stages.classifiers import train_judge
from iin_training.stages.first_stage import train_first_stage
from iin_training.stages.transform import train_transform
from rich.console import Console

SIZES = {"residual": 2, "digit": 1, "colour": 1}
CLASSES = 3


class Interrupted(Exception):
    """Stands for Ctrl-C, a full disk or a power cut."""


class Blobs(ColouredDigits):
    """Real drawing code over 8x8 pictures of three kinds; what leads out of the loop can be set off at a draw."""

    def __init__(self, on_draw=lambda count, images: images):
        numbers = np.random.default_rng(0)
        labels = np.arange(60, dtype=np.int64) % CLASSES
        images = numbers.integers(0, 40, (60, 8, 8)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[1:7, 2 * label : 2 * label + 3] = 255
        super().__init__(images, labels, size=8, augmentation=Augmentation())
        self.on_draw, self.drawn = on_draw, 0

    def batch(self, count, generator):
        images, labels = super().batch(count, generator)
        self.drawn += 1
        return self.on_draw(self.drawn, images), labels


class BlobPairs(DigitPairs):
    """Pairs of blobs; a draw of them sets off what a draw of the blobs does."""

    def draw(self, count, factors, generator):
        pairs, blobs = super().draw(count, factors, generator), self._data
        blobs.drawn += 1
        return replace(pairs, images_a=blobs.on_draw(blobs.drawn, pairs.images_a))

    def digest(self):
        return super().digest()


def optimiser(steps=50, **changed):
    settings = {"steps": steps, "batch_size": 8, "learning_rate": 1e-3} | changed
    return config.Optimiser(**settings)


def untrained_encoder():
    return Autoencoder(image_size=8, channels=3, width=4, latent_size=4).eval().requires_grad_(False)


class Stage:
    """One stage of training by name, with its whole state as a flat dictionary of tensors."""

    def __init__(self, name):
        self.name = name
        self.draws_before = 1 if name == "transform" else 0  # ActNorm's first batch
        torch.manual_seed(0)
        self.encoder = untrained_encoder()

    def data(self, on_draw=lambda count, images: images):
        return Blobs(on_draw)

    def settings(self, **changed):
        how = optimiser(**changed)
        return {
            "judge": config.Judge(width=4, optimiser=how),
            "first_stage": config.Autoencoder(
                width=4,
                latent_size=4,
                noise_scale=0.2,
                adversary=config.Adversary(weight=0.5, start=0.3, width=4, stages=2),
                average=0.9,
                optimiser=how,
            ),
            "transform": config.Transform(blocks=2, hidden=8, depth=1, optimiser=how),
        }[self.name]

    def train(self, directory, data=None, *, seed=0, every=15, settings=None):
        run = Run(directory, seed=seed, checkpoint_every=every, console=Console(quiet=True))
        data, settings = data or self.data(), settings or self.settings()
        if self.name == "judge":
            model = train_judge(settings, data.batch, image_shape=(3, 8, 8), classes=CLASSES, run=run)
        elif self.name == "first_stage":
            model = train_first_stage(
                settings, lambda count, generator: data.batch(count, generator)[0], image_shape=(3, 8, 8), run=run
            )
        else:
            pairs = BlobPairs(data, {"digit": 1.0, "colour": 1.0})
            model = train_transform(settings, freeze(self.encoder), SIZES, pairs, run)
        return {name: value.clone() for name, value in model.state_dict().items()}

    def train_until(self, directory, step, **changed):
        """Interrupted in the middle of the update number `step` (from 0)."""

        def stop(count, images):
            if count == step + 1 + self.draws_before:
                raise Interrupted
            return images

        with pytest.raises(Interrupted):
            self.train(directory, self.data(stop), **changed)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Nothing was fetched before, and nothing can be."""

    def fail(package, *_):
        raise RuntimeError(f"no network for {package.name}")

    monkeypatch.setenv("IIN_CACHE", str(tmp_path / "empty cache"))
    monkeypatch.setattr(fetch, "_download", fail)


@pytest.fixture(params=["judge", "first_stage", "transform"])
def stage(request):
    return Stage(request.param)
