"""Fixtures that several folders of tests share."""

from dataclasses import replace
from pathlib import Path

import pytest
from iin_training.pipeline import run_recipe
from iin_training.recipes import digits
from rich.console import Console


@pytest.fixture(scope="session")
def digits_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle of the `digits` recipe with real data, trained for a few dozen steps: copy it before breaking it."""
    recipe = digits()

    def short(stage, steps):
        return replace(stage, optimiser=replace(stage.optimiser, steps=steps))

    recipe = replace(
        recipe,
        judge=short(recipe.judge, 60),
        autoencoder=short(recipe.autoencoder, 40),
        transform=short(recipe.transform, 30),
    )
    directory = tmp_path_factory.mktemp("digits")
    return run_recipe(recipe, directory, Console(quiet=True)).directory
