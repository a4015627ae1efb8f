"""Settings that mean nothing are refused where they are made, by name, with what was expected and given."""

import math

import pytest
import torch
from iin_training import config
from iin_training.data import fetch
from iin_training.models.discriminator import PatchDiscriminator
from iin_training.recipes import RECIPES
from iin_training.stages import first_stage
from iin_training.stages.first_stage import check_first_stage

from tests.training.conftest import optimiser


def against(**changed):
    return {"adversary": config.Adversary(**changed)}


@pytest.mark.parametrize(
    ("section", "changed", "words"),
    [
        (config.Optimiser, {"steps": 0}, r"optimiser\.steps: expected at least 1, got 0"),
        (config.Optimiser, {"batch_size": 0}, r"optimiser\.batch_size: expected at least 1, got 0"),
        (
            config.Optimiser,
            {"learning_rate": 0.0},
            r"optimiser\.learning_rate: expected a finite .* got 0",
        ),
        (config.Optimiser, {"learning_rate": math.inf}, r"optimiser\.learning_rate: expected a finite .* got inf"),
        (config.Optimiser, {"learning_rate": math.nan}, r"optimiser\.learning_rate: expected a finite .* got nan"),
        (
            config.Optimiser,
            {"betas": (1.5, 2.0)},
            r"optimiser\.betas: expected .* in \[0, 1\), got \(1\.5",
        ),
        (config.Optimiser, {"betas": (0.9, 1.0)}, r"optimiser\.betas: expected two decay rates"),
        (config.Optimiser, {"clip_norm": -1.0}, r"optimiser\.clip_norm: expected at least 0, got -1\.0"),
        (config.Optimiser, {"steps": 1e3}, r"optimiser\.steps: expected a whole number, got 1000\.0"),
        (config.Optimiser, {"learning_rate": "1e-3"}, r"optimiser\.learning_rate: expected a number, got '1e-3'"),
        (config.Optimiser, {"betas": (0.9,)}, r"optimiser\.betas: expected tuple\[float, float\], got \(0\.9,\)"),
        (config.Optimiser, {"schedule": "cosine"}, r"optimiser\.schedule: expected one of one_cycle, .*, got 'c"),
        (config.Transform, {"optimiser": None}, r"transform\.optimiser: expected Optimiser, got None"),
        (config.Transform, {"gaussianise": True}, r"transform\.gaussianise: expected a whole number, got True"),
        (config.Transform, {"sizes": {"digit": 2.0}}, r"transform\.sizes: expected dict\[str, int\] \| None, got {'di"),
        (config.Transform, {"precision": "float16"}, r"transform\.precision: expected one of .*16, got 'float16'"),
        (config.Transform, {"blocks": 0}, r"transform\.blocks: expected at least 1, got 0"),
        (config.Transform, {"hidden": 0}, r"transform\.hidden: expected at least 1, got 0"),
        (config.Transform, {"depth": 0}, r"transform\.depth: expected at least 1, got 0"),
        (config.Transform, {"noise": -1.0}, r"transform\.noise: expected a finite share of at least 0, got -1\.0"),
        (config.Transform, {"similarity": 1.0}, r"transform\.similarity: expected a correlation .* got 1\.0"),
        (config.Transform, {"similarity": 0.99999999}, r"transform\.similarity: .* in float32 too, .* got 0\.99999999"),
        (config.Judge, {"width": 0}, r"judge\.width: expected at least 1, got 0"),
        (config.HiddenClassifier, {"width": 0}, r"classifier\.width: expected at least 1, got 0"),
        (config.HiddenClassifier, {"latent_size": 1}, r"classifier\.latent_size: expected at least 2, .* got 1"),
        (config.Autoencoder, {"width": 0}, r"autoencoder\.width: expected at least 1, got 0"),
        (config.Autoencoder, {"latent_size": 1}, r"autoencoder\.latent_size: expected at least 2, .* got 1"),
        (config.Autoencoder, {"noise_scale": 0.0}, r"autoencoder\.noise_scale: expected .* above 0, or None, got 0\.0"),
        (config.Autoencoder, {"average": 1.0}, r"autoencoder\.average: expected a decay in \[0, 1\), got 1\.0"),
        (config.Autoencoder, {"workers": -1}, r"autoencoder\.workers: expected at least 0, got -1"),
        (config.Autoencoder, {"perceptual_weight": -1}, r"autoencoder\.perceptual_weight: expected at least 0, got -1"),
        (config.Autoencoder, against(start=2), r"autoencoder\.adversary\.start: expected a share in \[0, 1\], got 2"),
        (config.Autoencoder, against(weight=-1), r"autoencoder\.adversary\.weight: expected at least 0, got -1"),
        (config.Autoencoder, against(stages=0), r"autoencoder\.adversary\.stages: expected at least 1, got 0"),
        (config.Autoencoder, against(width=0), r"autoencoder\.adversary\.width: expected at least 1, got 0"),
        (config.Data, {"image_size": 48}, r"data\.image_size: expected a power of two of at least 8, got 48"),
        (config.Data, {"image_size": 4}, r"data\.image_size: expected a power of two of at least 8, got 4"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_what_cannot_be_is_refused(section, changed, words):
    needed = {config.Optimiser: {"steps": 1, "batch_size": 1, "learning_rate": 1.0}, config.Data: {}}
    given = needed.get(section, {"optimiser": optimiser()})
    section(**given)
    with pytest.raises(ValueError, match=words):
        section(**given | changed)


SIZES = {"mnist": 32, "fashion": 32, "animals": 32, "emoji": 64}  # pixels, of sets of pictures


@pytest.mark.parametrize("name", RECIPES)
def test_our_recipes_can_be(name, monkeypatch):
    asked = []
    monkeypatch.setattr(fetch, "_download", lambda package, *_: asked.append(package))
    monkeypatch.setattr(first_stage, "fetch_weights", lambda: asked.append("perceptual"))
    recipe = RECIPES[name]()
    if isinstance(recipe, config.Recipe | config.PictureRecipe):
        size = SIZES[recipe.data.source] if isinstance(recipe, config.PictureRecipe) else recipe.data.image_size
        check_first_stage(recipe.autoencoder, size)
    assert not asked


@pytest.mark.parametrize(("stages", "size"), [(5, 32), (3, 8)])
def test_an_adversary_halves_pictures_down_to_a_pixel_and_no_further(stages, size):
    def with_stages(number):
        return config.Autoencoder(adversary=config.Adversary(weight=1.0, stages=number), optimiser=optimiser())

    def judged_by(number):
        return PatchDiscriminator(channels=1, width=2, stages=number)(torch.zeros(1, 1, size, size))

    assert judged_by(stages).shape == (1, 1, 1, 1)
    with pytest.raises(RuntimeError):
        judged_by(stages + 1)
    check_first_stage(with_stages(stages), size)
    words = (
        rf"autoencoder\.adversary\.stages: expected at most {stages} for pictures of {size}x{size}, .* got {stages + 1}"
    )
    with pytest.raises(ValueError, match=words):
        check_first_stage(with_stages(stages + 1), size)
    without = config.Autoencoder(adversary=config.Adversary(stages=stages + 1), optimiser=optimiser())
    check_first_stage(without, size)


def test_a_perceptual_network_wants_pictures_that_it_can_see():
    words = r"autoencoder\.perceptual: expected none for pictures of 16x16, got alex, which wants at least 21 pixels"
    with pytest.raises(ValueError, match=words):
        check_first_stage(config.Autoencoder(perceptual="alex", optimiser=optimiser()), 16)
