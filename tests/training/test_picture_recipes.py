"""Recipes for sets of pictures, from a small set to a bundle."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from iin_training.data.augmentation import STILL
from iin_training.data.images import ImageArray
from iin_training.data.picture_sets import PictureSet
from iin_training.pipeline import run_recipe, score_recipe
from iin_training.plans import pictures as plans
from iin_training.recipes import RECIPES
from PIL import Image
from rich.console import Console


def small_set(channels):
    """120 pictures of 8x8: one of three stripes, bright or dark, over noise."""
    numbers = np.random.default_rng(0)
    animal, light = np.arange(120) % 3, np.arange(120) // 3 % 2
    images = numbers.integers(0, 30, (120, 8, 8)).astype(np.uint8)
    for image, which, bright in zip(images, animal, light, strict=True):
        image[:, 2 * which + 1 : 2 * which + 3] = 250 if bright else 120
    images = images if channels == 1 else np.stack([images] * channels, axis=-1)
    values = {"animal": ("big cat", "dog/wolf", "hen"), "light": ("dark", "bright"), "rare": ("old", "new")}
    rare = np.where(np.arange(120) < 80, 0, 1)  # nobody has seen a new one
    labels = {"animal": animal, "light": light, "rare": rare}
    return PictureSet(
        name="stripes",
        sha256="1" * 64,
        images=images[:80],
        labels={name: codes[:80].astype(np.int64) for name, codes in labels.items()},
        held_out_images=images[80:],
        held_out_labels={name: codes[80:].astype(np.int64) for name, codes in labels.items()},
        values=values,
    )


@pytest.fixture
def small(monkeypatch):
    def make(name, channels=1, **changed):
        monkeypatch.setattr(plans, "_load", lambda data, seed: small_set(channels))
        recipe = RECIPES[name]()

        def brief(part, steps, **more):
            return replace(part, optimiser=replace(part.optimiser, steps=steps, batch_size=16), **more)

        return replace(
            recipe,
            judge=brief(recipe.judge, 60, width=4),
            autoencoder=brief(
                recipe.autoencoder,
                30,
                width=4,
                latent_size=6,
                perceptual="none",
                adversary=replace(recipe.autoencoder.adversary, weight=0.0),
            ),
            transform=brief(recipe.transform, 10, blocks=2, hidden=8),
            **changed,
        )

    return make


@pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
def test_labelled_pictures_become_a_bundle_with_a_judge_for_what_can_be_judged(small, tmp_path):
    recipe = small("animals", concepts={"animal": 1.0, "light": 2.0})
    bundle = run_recipe(recipe, tmp_path / "run", Console(quiet=True))
    manifest = bundle.manifest
    trained = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert trained == {*plans.PicturesPlan(recipe).stages, "transform", "gaussianisation"}
    assert [part.name for part in manifest.layout] == ["residual", "animal", "light"]
    assert manifest.image.channels == 1
    figures = manifest.evaluation
    assert figures["judge_light"].value > 0.9
    assert {"swap_animal", "swap_animal_light_kept", "swap_light_animal_kept", "prior_light_agreement"} < set(figures)
    assert not {"judge_rare", "reconstruction_rare"} & set(figures)
    samples = sorted(path.name for path in (bundle.directory / "samples").iterdir())
    assert all(name.endswith(("rare-new.png",)) for name in samples)
    assert any("dog-wolf" in name for name in samples)
    with Image.open(tmp_path / "run/pictures.png") as page:
        assert page.width == 1500


@pytest.mark.filterwarnings("ignore")
def test_without_concepts_there_is_one_factor_and_samples_are_measured(small, tmp_path):
    bundle = run_recipe(small("mnist", channels=3), tmp_path / "run", Console(quiet=True))
    assert [part.name for part in bundle.manifest.layout] == ["residual"]
    assert bundle.manifest.image.channels == 3
    figures = bundle.manifest.evaluation
    assert {"reconstruction_animal", "prior_animal_confidence", "prior_animal_rarest"} < set(figures)
    assert not any(name.startswith("swap_") for name in figures)
    for name in ("KID-lite0", "FD-lite0"):  # real against real is nearer than what an untrained model makes
        assert figures[name].ceiling < min(figures[name].value, figures[f"{name}_reconstructed"].value)
    settings = json.loads((tmp_path / "run/settings.json").read_text())
    assert settings["data"]["sha256"] == "1" * 64


def test_a_concept_that_the_data_does_not_tell_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match=r"concepts: expected some of animal, light, rare, .*got colour"):
        run_recipe(small("animals", concepts={"colour": 1.0}), tmp_path, Console(quiet=True))


def test_what_measures_samples_is_fetched_before_anything_is_trained(small, tmp_path, no_network):
    with pytest.raises(RuntimeError, match="no network for efficientnet-lite0"):
        run_recipe(small("mnist"), tmp_path / "run", Console(quiet=True))
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_scores_want_nothing_that_measures_samples(small, tmp_path, no_network):
    assert score_recipe(small("mnist"), tmp_path / "run", Console(quiet=True)).reference.keys() == {"residual"}


def test_too_few_held_out_pictures_are_told_by_their_number(small, tmp_path, monkeypatch):
    recipe, whole = small("animals"), small_set(1)
    few = replace(
        whole,
        held_out_images=whole.held_out_images[:3],
        held_out_labels={name: codes[:3] for name, codes in whole.held_out_labels.items()},
    )
    monkeypatch.setattr(plans, "_load", lambda data, seed: few)
    words = r"data\.held_out: expected enough pictures .* got 3 \(animal: .*\); raise it"
    with pytest.raises(ValueError, match=words) as told:
        run_recipe(recipe, tmp_path / "run", Console(quiet=True))
    assert "drop_single" not in str(told.value)
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_an_adversary_too_deep_for_the_pictures_is_told_before_anything_is_trained(small, tmp_path):
    recipe = small("animals")
    adversary = replace(recipe.autoencoder.adversary, weight=1.0, stages=4)
    recipe = replace(recipe, autoencoder=replace(recipe.autoencoder, adversary=adversary))
    with pytest.raises(ValueError, match=r"autoencoder\.adversary\.stages: expected at most 3"):
        run_recipe(recipe, tmp_path / "run", Console(quiet=True))
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_variants_differ_in_one_concept_and_share_all_others(small):
    recipe = small("animals", concepts={"animal": 1.0, "light": 1.0}, variants={"light": 20.0})
    recipe = replace(recipe, data=replace(recipe.data, augmentation=STILL))
    plan = plans.PicturesPlan(recipe)
    pairs = plan._pairs(ImageArray(plan._set.images), plan._set.labels)
    factors = ("residual", "animal", "light")
    batch = pairs.draw(400, factors, torch.Generator().manual_seed(0))
    rows = batch.shared.tolist()
    assert rows.count([True, True, False]) > 350
    # The stripe, whose place is the animal, is the brightest column of a picture, dim or not.
    a, b = (images.mean(dim=(1, 2)).argmax(dim=1) // 2 for images in (batch.images_a, batch.images_b))
    variants = torch.tensor([row == [True, True, False] for row in rows])
    assert torch.equal(a[variants], b[variants])


@pytest.mark.parametrize(
    ("concepts", "variants", "words"),
    [
        ({"animal": 1.0, "light": 1.0}, {"rare": 1.0}, r"variants: expected some of several concepts"),
        ({"animal": 1.0}, {"animal": 1.0}, r"variants: expected some of several concepts"),
        ({"animal": 1.0, "light": 1.0}, {"light": 0.0}, r"variants: expected weights above 0"),
    ],
)
def test_variants_that_mean_nothing_are_refused(concepts, variants, words):
    with pytest.raises(ValueError, match=words):
        replace(RECIPES["animals"](), concepts=concepts, variants=variants)


def test_weights_of_concepts_are_positive():
    with pytest.raises(ValueError, match=r"concepts: expected weights above 0"):
        replace(RECIPES["animals"](), concepts={"animal": 0.0})
