"""Real digits in three lights, classifiers that were taught one of both, and a recipe for the hidden layer of one."""

import numpy as np
import pytest
import torch
from iin_training.config import Optimiser, Transform
from iin_training.data.digits import load_digits
from iin_training.data.images import ImageArray
from iin_training.models.cut import cut
from iin_training.models.frozen import FrozenModel
from iin_training.own_model import OwnModel
from iin_training.pairs import Mixed, SameLabel
from iin_training.pipeline import run_recipe
from rich.console import Console
from torch import nn
from torch.nn import functional

SHAPE = (1, 28, 28)
LIGHTS = (0.25, 0.5, 1.0)
BRIEF = Transform(
    blocks=1,
    hidden=32,
    depth=1,
    optimiser=Optimiser(steps=30, batch_size=48, learning_rate=1e-3, schedule="linear_end"),
)


class Pictures:
    """Real digits, each drawn in one of three lights: two concepts that have nothing to do with each other."""

    def __init__(self, images, labels, seed):
        light = np.random.default_rng(seed).integers(len(LIGHTS), size=len(images))
        levels = (images * np.array(LIGHTS)[light, None, None]).round().astype(np.uint8)
        self.images = ImageArray(levels, value_range=(0.0, 1.0))
        self.labels = {"digit": labels, "light": light}

    def pairs(self, *concepts):
        return Mixed([(SameLabel(self.images, self.labels[name], name), 1.0) for name in concepts])

    def everything(self):
        every = torch.arange(len(self.images))
        return self.images.load(every, None), {name: torch.from_numpy(of) for name, of in self.labels.items()}


class Classifier(nn.Module):
    """Layers of the user's, with the last but one to look into."""

    def __init__(self, classes):
        super().__init__()
        self.first, self.hidden, self.last = nn.Linear(784, 32), nn.Linear(32, 8), nn.Linear(8, classes)

    def forward(self, images):
        return self.last(self.hidden(self.first(images.flatten(1)).relu()).relu())


def trained(pictures, concept):
    """A classifier that was taught one concept and nothing else."""
    images, labels = pictures.everything()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Classifier(int(labels[concept].max()) + 1)
    optimiser, generator = torch.optim.Adam(network.parameters(), lr=3e-3), torch.Generator().manual_seed(0)
    for _ in range(300):
        rows = torch.randint(len(images), (64,), generator=generator)
        loss = functional.cross_entropy(network(images[rows]), labels[concept][rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


def opened(network):
    """The classifier cut at its hidden layer."""
    encoder, head = cut(network, "hidden", image_shape=SHAPE)
    return FrozenModel(encoder, head=head, image_shape=SHAPE, value_range=(0.0, 1.0))


@pytest.fixture(scope="session")
def pictures():
    data = load_digits(None, held_out=500, seed=0)
    return Pictures(data.images[::2], data.labels[::2], 1), Pictures(data.held_out_images, data.held_out_labels, 2)


@pytest.fixture(scope="session")
def networks(pictures):
    return {concept: trained(pictures[0], concept) for concept in ("digit", "light")}


@pytest.fixture(scope="session")
def recipe(pictures, networks):
    seen, held_out = (part.pairs("digit", "light") for part in pictures)
    return OwnModel(name="hidden", model=opened(networks["digit"]), pairs=seen, held_out=held_out, transform=BRIEF)


@pytest.fixture(scope="session")
def finished(recipe, tmp_path_factory):
    """The directory of a whole run."""
    return run_recipe(recipe, tmp_path_factory.mktemp("own") / "run", Console(quiet=True)).directory.parent


def quiet(recipe, directory):
    return run_recipe(recipe, directory, Console(quiet=True))


def digits_again():
    data = load_digits(None, held_out=500, seed=0)
    return data.images[::2], data.labels[::2]
