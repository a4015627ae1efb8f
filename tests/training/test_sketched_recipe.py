"""docs/recipes/sketched.py: from the digits' bundle and two sketches to a bundle with its figures, in a few steps."""

import functools
import importlib.util
from pathlib import Path

import pytest
import torch
from iin_training.own_model import OwnModel
from iin_training.pipeline import run_recipe, score_recipe
from iin_training.sketch_sheet import show_sketches
from PIL import Image
from rich.console import Console

FILE = Path(__file__).parents[2] / "docs/recipes/sketched.py"
QUIET = Console(quiet=True)


def loaded():
    spec = importlib.util.spec_from_file_location("sketched", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sketched(monkeypatch, digits_bundle, tmp_path):
    """The recipe over the session's bundle, with few pictures and steps."""
    module = loaded()
    monkeypatch.setattr(module, "BUNDLE", digits_bundle)
    monkeypatch.setattr(module, "OUTPUT", tmp_path / "sketched")
    monkeypatch.setattr(module, "DRAWN", 60)
    monkeypatch.setattr(module, "DRAWN_HELD_OUT", 40)
    optimiser = module.Optimiser
    monkeypatch.setattr(module, "Optimiser", lambda **given: optimiser(**given | {"steps": 10}))
    monkeypatch.setattr(module, "Sketches", functools.partial(module.Sketches, steps=2, console=QUIET))
    return module


def test_the_recipe_shows_its_sketches_scores_its_concept_and_becomes_a_bundle(sketched, tmp_path):
    recipe = sketched.sketched()
    assert isinstance(recipe, OwnModel)
    assert recipe.held_out.concepts == ("tint",)
    show_sketches(recipe, tmp_path / "sheet", QUIET)
    with Image.open(tmp_path / "sheet/sketches-tint.png") as sheet:
        assert sheet.height > 12 * 96  # a row a picture
    assert score_recipe(recipe, tmp_path / "run", QUIET).size > 0
    manifest = run_recipe(recipe, tmp_path / "run", QUIET).manifest
    assert [part.name for part in manifest.layout] == ["residual", "tint"]
    figures = manifest.evaluation
    assert {"red_to_blue", "blue_to_red", "red_to_blue_digit_kept", "blue_to_red_digit_kept"} <= set(figures)
    # What either style gives in full is what the other starts from.
    assert figures["red_to_blue"].ceiling == figures["blue_to_red"].floor
    assert figures["red_to_blue"].floor == figures["blue_to_red"].ceiling


def test_redness_is_red_minus_blue_of_what_is_bright():
    redness, images = loaded().redness, torch.full((2, 3, 8, 8), -1.0)
    assert redness(images) == 0.0
    images[0, 0, :2] = images[1, 2, :2] = 1.0  # 16 pixels, red in one and blue in the other
    assert redness(images[:1]) == 2.0
    assert redness(images[1:]) == -2.0
    assert redness(images) == 0.0
    images[0, 0, 2:] = 0.0  # darker than these
    assert redness(images[:1]) == 2.0
