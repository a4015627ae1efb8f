"""Recipes for sets of pictures: without supervision, for samples, and with classes or attributes as factors."""

from dataclasses import replace

from iin_training.config import (
    Adversary,
    Autoencoder,
    Bundle,
    Judge,
    Optimiser,
    PictureData,
    PictureRecipe,
    Transform,
)
from iin_training.data.augmentation import STILL, Augmentation
from iin_training.recipes.digits import paper_autoencoder, paper_transform, small_transform

__all__ = ["animals", "emoji", "fashion", "fashion_paper", "mnist", "mnist_paper"]


def mnist() -> PictureRecipe:
    """MNIST without labels: an autoencoder whose prior gives pictures, sized for two cores."""
    return PictureRecipe(
        name="mnist",
        data=PictureData(source="mnist", augmentation=STILL),
        judge=Judge(width=24, optimiser=Optimiser(steps=800, batch_size=64, learning_rate=3e-3)),
        autoencoder=Autoencoder(
            latent_size=32, width=32, average=0.99, optimiser=Optimiser(steps=2000, batch_size=64, learning_rate=2e-3)
        ),
        transform=small_transform(Optimiser(steps=4000, batch_size=128, learning_rate=1e-3)),
        bundle=Bundle(name="mnist"),
    )


def fashion() -> PictureRecipe:
    """FashionMNIST without labels, with an adversarial loss, sized for two cores."""
    return _renamed(
        mnist(),
        "fashion",
        data=PictureData(source="fashion", augmentation=STILL),
        autoencoder=Autoencoder(
            latent_size=64,
            width=32,
            noise_scale=0.1,
            adversary=Adversary(weight=0.5, width=32),
            average=0.99,
            optimiser=Optimiser(steps=6000, batch_size=32, learning_rate=2e-3),
        ),
    )


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
    """Silhouettes of ten kinds of animals: the kind of one given to another, sized for two cores."""
    return _renamed(
        mnist(),
        "animals",
        data=PictureData(source="animals", held_out=1000),
        concepts={"animal": 1.0},
        autoencoder=Autoencoder(
            latent_size=48,
            width=32,
            noise_scale=0.12,
            adversary=Adversary(weight=0.5, width=32),
            average=0.99,
            optimiser=Optimiser(steps=5000, batch_size=32, learning_rate=2e-3),
        ),
        transform=small_transform(Optimiser(steps=4000, batch_size=64, learning_rate=1.5e-3)),
    )


def emoji() -> PictureRecipe:
    """Emoji of persons, 64x64 RGB: who it is, the tone of the skin, and the rest; sized for two cores."""
    return _renamed(
        mnist(),
        "emoji",
        data=PictureData(
            source="emoji",
            held_out=20,
            augmentation=Augmentation(rotation=6.0, zoom=0.08, shift=2.0, background=1.0),
        ),
        concepts={"person": 1.0, "skin": 1.0},
        variants={"skin": 2.0},
        autoencoder=Autoencoder(
            latent_size=64,
            width=32,
            noise_scale=0.12,
            optimiser=Optimiser(steps=5000, batch_size=32, learning_rate=2e-3),
        ),
        transform=Transform(
            blocks=4,
            hidden=256,
            depth=2,
            noise=0.1,
            gaussianise=0,  # 1,290 pictures are too few: persons not seen get less likely with it
            optimiser=Optimiser(steps=1000, batch_size=64, learning_rate=1e-3),
        ),
    )


def _renamed(recipe: PictureRecipe, name: str, **changed: object) -> PictureRecipe:
    """`recipe` under another name, and otherwise as `changed` says."""
    return replace(recipe, name=name, bundle=Bundle(name=name), **changed)  # type: ignore[arg-type]
