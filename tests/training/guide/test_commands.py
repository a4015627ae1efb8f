"""The guide to interpreting one's own model: its commands and recipes run as they are printed."""

import shlex
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from iin_bundle import FactorLayout, read_bundle
from iin_training.flows import interpretation_flow
from iin_training.own_model import OwnModel
from iin_training.recipes import find_recipe
from iin_training.run import Run
from iin_training.stages.transform import score_concepts
from PIL import Image
from rich.console import Console

from .conftest import COMMANDS, PYTHON, SIZES

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies


def test_the_first_recipe_is_whole_and_has_thirty_lines_at_most():
    lines = [line for line in PYTHON[0].splitlines() if line.strip()]
    assert len(lines) <= 30
    assert max(map(len, "".join(PYTHON).splitlines())) <= 120


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_runs(finished, line):
    result = finished[line]
    assert result.returncode == 0, result.stdout + result.stderr
    said = {
        "scores": "share of the variance",
        "sketches": "light: build/sketched/sketches-light.png",
        "run": "digit_edit_taken",
        "build/mine/bundle": "mine",
    }
    assert said[shlex.split(line)[1]] in result.stdout


def test_the_bundle_is_whole_and_has_the_concept_as_a_factor(folder, finished):
    manifest = read_bundle(folder / "build/mine/bundle").manifest
    _, name, size = SIZES.split()
    assert {part.name: part.size for part in manifest.layout} == {"residual": 12 - int(size), name: int(size)}
    assert set(manifest.graphs) == {"encoder", "transform", "inverse", "decoder"}
    assert (manifest.name, manifest.provenance.recipe) == ("mine", "mine")
    assert (manifest.image.shape, manifest.image.minimum, manifest.image.maximum) == ((1, 28, 28), 0.0, 1.0)


def test_the_bundle_answers_as_the_users_own_network_does(folder, finished, guide):
    bundle = read_bundle(folder / "build/mine/bundle")
    sessions = {
        role: onnxruntime.InferenceSession(bundle.graph_path(role), providers=["CPUExecutionProvider"])
        for role in bundle.manifest.graphs
    }
    pictures = sorted((folder / "pictures/test").rglob("*.png"))[:7]
    images = np.stack([np.asarray(Image.open(file), np.float32)[None] / 255 for file in pictures])
    (latents,) = sessions["encoder"].run(None, {"image": images})
    factors, _ = sessions["transform"].run(None, {"latent": latents})
    back, _ = sessions["inverse"].run(None, {"factors": factors})
    (shown,) = sessions["decoder"].run(None, {"latent": back})
    model = guide.my_recipe().model
    expected = model.decode(model.encode(torch.from_numpy(images)))
    np.testing.assert_allclose(shown, expected.numpy(), atol=1e-3)


def test_the_users_package_called_training_and_ours_live_in_one_process(folder, guide):
    assert Path(sys.modules["training"].__file__) == folder / "training/__init__.py"
    assert guide.Autoencoder.__module__ == "training.model"
    assert guide.OwnModel is OwnModel


@pytest.mark.parametrize(
    ("name", "graphs"), [("from_onnx", {"encoder", "decoder"}), ("hidden_layer", {"encoder", "head"})]
)
def test_the_other_recipes_are_recipes(guide, tmp_path, name, graphs):
    recipe = find_recipe(f"{guide.__file__}:{name}")()
    assert set(recipe.model.networks()) == graphs
    run = Run(tmp_path, seed=0, checkpoint_every=1, console=Console(quiet=True))
    assert score_concepts(recipe.model, recipe.pairs, run).reference["digit"] > 0.2


def test_the_measure_gives_a_figure(guide):
    recipe = guide.with_measure()
    flow = interpretation_flow((12,), blocks=1, hidden=8, depth=1, seed=0)
    little = FactorLayout.from_sizes({"digit": 1, "residual": 11})
    everything = FactorLayout.from_sizes({"digit": 11, "residual": 1})
    least, most = (recipe.measure(recipe.model, flow, layout)["swapped_digit"].value for layout in (little, everything))
    assert 0 <= least < most <= 1
