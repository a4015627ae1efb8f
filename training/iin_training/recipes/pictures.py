"""Recipes for sets of pictures: without supervision, for samples, and with classes or attributes as factors."""

from dataclasses import replace

from iin_training.config import (
    Autoencoder,
    Bundle,
    Judge,
    Optimiser,
    PictureData,
    PictureRecipe,
    Transform,
)
from iin_training.data.colour import Augmentation
from iin_training.recipes.digits import paper_autoencoder, paper_transform

__all__ = ["animals", "emoji", "fashion", "fashion_paper", "mnist", "mnist_paper"]

STILL = Augmentation(rotation=0, zoom=0, shear=0, shift=0)


def mnist() -> PictureRecipe:
    """MNIST without labels: an autoencoder whose prior gives pictures, within 20 minutes on two cores."""
    return PictureRecipe(
        name="mnist",
        data=PictureData(source="mnist", augmentation=STILL),
        judge=Judge(width=24, optimiser=Optimiser(steps=1000, batch_size=64, learning_rate=3e-3)),
        autoencoder=Autoencoder(
            latent_size=64,
            width=32,
            perceptual="alex",
            average=0.995,
            optimiser=Optimiser(steps=3000, batch_size=64, learning_rate=2e-3),
        ),
        transform=Transform(
            blocks=8,
            hidden=256,
            depth=2,
            optimiser=Optimiser(steps=6000, batch_size=128, learning_rate=1e-3),
        ),
        bundle=Bundle(name="mnist"),
    )


def fashion() -> PictureRecipe:
    """FashionMNIST without labels, as `mnist`."""
    return _renamed(mnist(), "fashion", data=PictureData(source="fashion", augmentation=STILL))


def mnist_paper() -> PictureRecipe:
    """MNIST without labels with the paper's networks, losses and step counts: for a GPU."""
    return _renamed(
        mnist(),
        "mnist-paper",
        autoencoder=paper_autoencoder(),
        transform=paper_transform(),
        checkpoint_every=2000,
    )


def fashion_paper() -> PictureRecipe:
    """FashionMNIST without labels, as `mnist-paper`."""
    return _renamed(mnist_paper(), "fashion-paper", data=fashion().data)


def animals() -> PictureRecipe:
    """Silhouettes of ten kinds of animals: the kind of one given to another."""
    return _renamed(
        mnist(),
        "animals",
        data=PictureData(source="animals"),
        concepts={"animal": 1.0},
    )


def emoji() -> PictureRecipe:
    """Emoji of persons: who it is, the tone of the skin, and the rest."""
    return _renamed(
        mnist(),
        "emoji",
        data=PictureData(source="emoji", held_out=20),
        concepts={"person": 1.0, "skin": 1.0},
    )


def _renamed(recipe: PictureRecipe, name: str, **changed: object) -> PictureRecipe:
    """`recipe` under another name, and otherwise as `changed` says."""
    return replace(recipe, name=name, bundle=Bundle(name=name), **changed)  # type: ignore[arg-type]
