"""A frozen model of the user's own, from scores and training to the bundle, resumed and reused."""

import io
import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from iin_bundle import Figure, read_bundle
from iin_training import pipeline
from iin_training.models.frozen import FrozenModel
from iin_training.own_model import OwnModel
from iin_training.pairs import Unrelated
from iin_training.pipeline import run_recipe, score_recipe
from rich.console import Console
from torch import nn

from .conftest import BRIEF, SHAPE, Pictures, digits_again, opened, quiet

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies


def test_a_model_scores_higher_on_what_it_was_taught(recipe, networks, tmp_path):
    found = {
        concept: score_recipe(replace(recipe, model=opened(network)), tmp_path / concept, Console(quiet=True)).reference
        for concept, network in networks.items()
    }
    assert found["digit"]["digit"] > found["light"]["digit"] + 0.2
    assert found["light"]["light"] > found["digit"]["light"] + 0.2
    assert not (tmp_path / "digit/checkpoints").exists()  # nothing was trained


class Dead(nn.Module):
    """An encoder of which one unit never fires."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images):
        return self.encoder(images) * torch.tensor([0.0] + [1.0] * 7)


def test_scores_tell_of_units_that_never_fire(recipe, networks, tmp_path):
    model = FrozenModel(Dead(opened(networks["digit"]).encoder), image_shape=SHAPE, value_range=(0.0, 1.0))
    shown = io.StringIO()
    score_recipe(replace(recipe, model=model), tmp_path, Console(file=shown, width=1000))
    assert re.search(
        r"latents: 1 of 8 dimensions are constant and \d often take one value;.*another layer", shown.getvalue()
    )


def test_a_classifier_cut_in_two_becomes_a_bundle_without_decoder(recipe, finished, networks, pictures):
    bundle = read_bundle(finished / "bundle")
    assert set(bundle.manifest.graphs) == {"encoder", "transform", "inverse", "head"}
    assert bundle.manifest.layout.names == ("residual", "digit", "light")
    assert sum(part.size for part in bundle.manifest.layout) == bundle.manifest.size == 8
    assert (bundle.manifest.name, bundle.manifest.version) == ("hidden", "1")
    given, names = pictures[1].images.load(torch.arange(5), None), {"encoder": "image", "transform": "latent"}
    values = given.numpy()
    for role, name in (names | {"inverse": "factors", "head": "latent"}).items():
        session = onnxruntime.InferenceSession(bundle.graph_path(role), providers=["CPUExecutionProvider"])
        values = session.run(None, {name: values})[0]
    expected = torch.softmax(networks["digit"](given), dim=1).detach().numpy()
    np.testing.assert_allclose(values, expected, atol=1e-3)
    assert len(list((finished / "bundle/samples").iterdir())) == 12


def test_everything_is_measured_that_needs_no_decoder(finished):
    figures = read_bundle(finished / "bundle").manifest.evaluation
    responses = {"residual_response", "digit_response", "light_response"}
    assert set(figures) == {"held_out_log_likelihood", "digit_shared", "light_shared"} | responses
    assert math.isfinite(figures["held_out_log_likelihood"].value)
    for name in ("digit_shared", "light_shared"):
        assert min(figures[name].floor, figures[name].value) >= -1
        assert max(figures[name].floor, figures[name].value) <= 1
    assert figures["digit_shared"].value > figures["digit_shared"].floor + 0.2
    for name in responses:
        assert 0 <= figures[name].value <= 1
        assert 0.5 < figures[name].ceiling <= 1  # ten digits
        assert figures[name].meaning in (finished / "bundle/MODEL_CARD.md").read_text()


def test_a_finished_run_is_reused(recipe, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    said = io.StringIO()
    bundle = run_recipe(recipe, finished, Console(file=said, width=1000))
    assert "made before with the same settings and data, reused" in said.getvalue()
    assert bundle.manifest == read_bundle(finished / "bundle").manifest
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_the_export_is_tried_on_the_runs_own_disk_before_anything_is_trained(recipe, tmp_path, monkeypatch):
    def full(model, images, directory):
        raise OSError(f"no space in {directory}")

    monkeypatch.setattr(pipeline, "check_exportable", full)
    with pytest.raises(OSError, match=f"no space in {tmp_path}$"):
        run_recipe(recipe, tmp_path, Console(quiet=True))
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("other", ["model", "pairs"])
def test_another_model_or_other_pairs_are_refused_in_a_run_directory(recipe, finished, networks, tmp_path, other):
    directory = shutil.copytree(finished, tmp_path / "run")
    changed = {
        "model": {"model": opened(networks["light"]), "transform": by_hand()},
        "pairs": {"pairs": Pictures(*digits_again(), 3).pairs("digit", "light"), "transform": by_hand()},
    }[other]
    with pytest.raises(
        ValueError, match=rf"made with other settings .*\b{other}: [0-9a-f]{{64}} then, [0-9a-f]{{64}} now"
    ):
        quiet(replace(recipe, **changed), directory)
    assert read_bundle(directory / "bundle").manifest == read_bundle(finished / "bundle").manifest


def by_hand():
    return replace(BRIEF, sizes={"digit": 2, "light": 2})


class Interrupted(Exception):
    """Stands for Ctrl-C, a full disk or a power cut."""


class Stopping:
    """The same pairs, until so many batches of training are drawn."""

    def __init__(self, pairs, batches):
        self.concepts, self._pairs, self._left = pairs.concepts, pairs, batches

    def draw(self, count, factors, generator):
        if count == BRIEF.optimiser.batch_size:
            self._left -= 1
            if self._left < 0:
                raise Interrupted
        return self._pairs.draw(count, factors, generator)

    def digest(self):
        return self._pairs.digest()


def test_an_interrupted_run_ends_like_one_that_was_not(recipe, finished, tmp_path):
    often = replace(recipe, checkpoint_every=10)
    with pytest.raises(Interrupted):
        quiet(replace(often, pairs=Stopping(recipe.pairs, 17)), tmp_path)
    assert json.loads((tmp_path / "checkpoints/transform/checkpoint.json").read_text())["step"] == 10
    assert not (tmp_path / "bundle").exists()
    # What is measured, and what the bundle is called, may change meanwhile: T does not depend on it.
    resumed = quiet(replace(often, version="2", measure=dimensions), tmp_path).manifest
    whole = read_bundle(finished / "bundle").manifest
    assert resumed.evaluation == whole.evaluation | {"dimensions": Figure(value=8.0, meaning="of the layout")}
    assert (resumed.version, resumed.layout) == ("2", whole.layout)
    for role in ("transform", "inverse"):
        assert resumed.graphs[role].file.sha256 == whole.graphs[role].file.sha256


def dimensions(model, transform, layout):
    return {"dimensions": Figure(value=float(layout.size), meaning="of the layout")}


def test_another_measure_is_another_run(recipe):
    measured = replace(recipe, measure=dimensions)
    assert measured.identity() != recipe.identity()
    assert measured.identity() != replace(recipe, measure=lambda *_: {}).identity()
    assert measured.identity() == replace(recipe, measure=dimensions).identity()


def test_a_model_of_the_users_is_interpreted_without_any_concept(pictures, networks, tmp_path):
    """The unsupervised loss, on an encoder that samples."""
    seen, held_out = (Unrelated(part.images) for part in pictures)
    model = FrozenModel(Sampling(opened(networks["digit"]).encoder), image_shape=SHAPE, value_range=(0.0, 1.0))
    recipe = OwnModel(name="alone", model=model, pairs=seen, held_out=held_out, transform=BRIEF)
    assert score_recipe(recipe, tmp_path, Console(quiet=True)).reference == {"residual": 1.0}
    manifest = quiet(recipe, tmp_path).manifest
    assert [(part.name, part.start, part.size) for part in manifest.layout] == [("residual", 0, 8)]
    assert set(manifest.graphs) == {"encoder", "transform", "inverse"}
    assert set(manifest.evaluation) == {"held_out_log_likelihood"}


class Sampling(nn.Module):
    """A distribution around the latents of another encoder."""

    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def forward(self, images):
        mean = self.mean(images)
        return mean, torch.full_like(mean, -4.0)
