"""From a recipe to a bundle: what is there is reused, and what does not belong together is refused."""

import errno
import fcntl
import io
import json
import math
import os
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from iin_bundle import Figure, read_bundle
from iin_training import pipeline
from iin_training.cli import main
from iin_training.config import PairMix
from iin_training.flows import ActNorm, Flow
from iin_training.models.autoencoder import freeze
from iin_training.models.checks import check_interpretable
from iin_training.models.frozen import FrozenModel
from iin_training.pairs.digits import DigitPairs
from iin_training.pipeline import _joined, _likelier, _tried, run_recipe, score_recipe
from iin_training.plans.coloured_digits import DigitsPlan
from iin_training.recipes import RECIPES
from iin_training.run import Run, claimed
from iin_training.stages import first_stage, gaussianisation, latents
from rich.console import Console
from torch import nn

from tests.training.conftest import Blobs, untrained_encoder

BY_HAND, TOO_LARGE = {"digit": 2, "colour": 2}, {"digit": 4, "colour": 4}  # of 8 dimensions


def write_digits(folder, seed):
    """Sixty 8x8 pictures of three classes as IDX files."""
    folder.mkdir(exist_ok=True)
    images = np.random.default_rng(seed).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    labels = (np.arange(60) % 3).astype(np.uint8)
    for name, array in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / name).write_bytes(header + array.tobytes())
    return folder


def tiny(recipe, idx_dir, pairs=None, **transform):
    """A recipe of a second, up to the transform."""

    def small(stage, **changed):
        return replace(stage, optimiser=replace(stage.optimiser, steps=3, batch_size=4), width=4, **changed)

    return replace(
        recipe,
        data=replace(recipe.data, idx_dir=idx_dir, held_out=10, image_size=8),
        judge=small(recipe.judge),
        autoencoder=small(recipe.autoencoder, latent_size=8),
        pairs=pairs or recipe.pairs,
        transform=replace(recipe.transform, **transform),
    )


def test_a_finished_run_is_reused_and_says_so(brief_recipe, digits_bundle):
    before = {path: path.stat().st_mtime_ns for path in digits_bundle.parent.rglob("*")}
    said = io.StringIO()
    bundle = run_recipe(brief_recipe, digits_bundle.parent, Console(file=said, width=1000))
    assert "made before with the same settings and data, reused" in said.getvalue()
    assert bundle.manifest == read_bundle(digits_bundle).manifest
    assert {path: path.stat().st_mtime_ns for path in digits_bundle.parent.rglob("*")} == before


class Scaled(Flow):
    """Multiplies by a number."""

    def __init__(self, factor):
        super().__init__([ActNorm(8)])
        torch.nn.init.constant_(self.blocks[0].log_scale, math.log(factor))


@pytest.mark.parametrize(("factor", "kept"), [(0.5, True), (2.0, False)])
def test_what_makes_held_out_pictures_less_likely_is_left_out(factor, kept):
    said, latents = io.StringIO(), 2 * torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    flows = [Scaled(1.0), Scaled(factor)]
    model = FrozenModel(nn.Flatten(), image_shape=(1, 2, 4), value_range=(-1.0, 1.0))
    chosen, figures = _likelier(*flows, model, latents, Console(file=said, width=1000))
    assert chosen is flows[kept]
    assert ("gaussianisation: left out" in said.getvalue()) is not kept
    gain = figures["gaussianisation_gain"]
    assert gain.value == pytest.approx((1 - factor**2) / 2 * float(latents.square().mean()) * 8 + 8 * math.log(factor))
    assert gain.meaning.endswith("; above 0, so they are part of T") is kept


@pytest.mark.parametrize("shift", [math.inf, math.nan])
def test_a_likelihood_that_is_not_finite_is_no_figure_and_leaves_the_blocks_out(shift):
    flows = [Scaled(1.0), Scaled(1.0)]
    nn.init.constant_(flows[1].blocks[0].shift, shift)
    model = FrozenModel(nn.Flatten(), image_shape=(1, 2, 4), value_range=(-1.0, 1.0))
    chosen, figures = _likelier(*flows, model, torch.ones(100, 8), Console(quiet=True))
    assert chosen is flows[0]
    assert not figures


@pytest.mark.parametrize(
    "sizes",
    [TOO_LARGE, {"digit": 0, "colour": 3}, {"digit": 9, "colour": 1}, {"digit": 2}, {"shape": 2}],
    ids=str,
)
def test_sizes_set_by_hand_name_every_concept_and_leave_room_for_the_residual(brief_recipe, tmp_path, sizes):
    recipe = tiny(brief_recipe, write_digits(tmp_path / "digits", seed=0), sizes=sizes)
    with pytest.raises(ValueError, match=r"transform\.sizes: expected a positive size for each of digit, colour"):
        run_recipe(recipe, tmp_path / "run", Console(quiet=True))
    assert not list((tmp_path / "run").rglob("*.safetensors")), "told before anything is trained"


def test_an_adversary_too_deep_for_the_pictures_is_told_before_anything_is_trained(brief_recipe, tmp_path):
    recipe = tiny(brief_recipe, write_digits(tmp_path / "digits", seed=0), sizes=BY_HAND)
    adversary = replace(recipe.autoencoder.adversary, weight=1.0, stages=4)
    recipe = replace(recipe, autoencoder=replace(recipe.autoencoder, adversary=adversary))
    with pytest.raises(ValueError, match=r"autoencoder\.adversary\.stages: expected at most 3 for pictures of 8x8"):
        run_recipe(recipe, tmp_path / "run", Console(quiet=True))
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_sizes_that_no_pairs_can_tell_are_told_before_anything_is_trained(brief_recipe, tmp_path):
    recipe = tiny(brief_recipe, write_digits(tmp_path / "digits", seed=0), pairs=PairMix(digit=0.0))
    with pytest.raises(ValueError, match=r"pairs\.digit: expected a weight above 0, .* or set transform\.sizes"):
        run_recipe(recipe, tmp_path / "run", Console(quiet=True))
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_weights_that_cannot_be_fetched_are_told_before_anything_is_trained(brief_recipe, tmp_path, no_network):
    recipe = tiny(brief_recipe, write_digits(tmp_path / "digits", seed=0), sizes=BY_HAND)
    data, first = replace(recipe.data, image_size=32), replace(recipe.autoencoder, perceptual="vgg16")
    with pytest.raises(RuntimeError, match="no network for stlpips-pytorch"):
        run_recipe(replace(recipe, data=data, autoencoder=first), tmp_path / "run", Console(quiet=True))
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_a_finished_first_stage_wants_no_weights_again(brief_recipe, tmp_path, no_network, monkeypatch):
    """It was trained where they could be had."""
    recipe = tiny(brief_recipe, write_digits(tmp_path / "digits", seed=0), sizes=BY_HAND)
    data, first = replace(recipe.data, image_size=32), replace(recipe.autoencoder, perceptual="vgg16")
    recipe = replace(recipe, data=data, autoencoder=first)
    with monkeypatch.context() as there:
        there.setattr(first_stage, "fetch_weights", lambda: None)
        there.setattr(first_stage, "PerceptualDistance", NoDistance)
        score_recipe(recipe, tmp_path / "run", Console(quiet=True))
    score_recipe(recipe, tmp_path / "run", Console(quiet=True))
    pointer = tmp_path / "run/checkpoints/first_stage/checkpoint.json"
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | {"step": 2}))
    with pytest.raises(RuntimeError, match="no network for stlpips-pytorch"):
        score_recipe(recipe, tmp_path / "run", Console(quiet=True))


class NoDistance(nn.Module):
    def __init__(self, network):
        super().__init__()

    def forward(self, decoded, images):
        return (decoded - images).flatten(1).mean(dim=1)


class Watched(DigitPairs):
    """Tells how many pairs are drawn at a time."""

    drawn: tuple[int, ...] = ()
    change = staticmethod(lambda batch: batch)

    def draw(self, count, factors, generator):
        self.drawn = (*self.drawn, count)
        return self.change(super().draw(count, factors, generator))


@pytest.fixture
def watched():
    return freeze(untrained_encoder()), Watched(Blobs(), {"digit": 1.0, "colour": 1.0})


def test_large_pictures_are_tried_few_at_a_time(watched, tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "USUAL", 3 * 8 * 8 // 64)  # pictures of 8x8 pass for some that are 64 times as large
    model, pairs = watched
    run = Run(tmp_path, seed=0, checkpoint_every=1, console=Console(quiet=True))
    assert [len(images) for images in _tried(model, pairs, run)] == list(pairs.drawn) == [8] * 64


class Together(nn.Module):
    """An encoder that mixes the items of a batch."""

    def forward(self, images):
        return images[:, 0, :2, :2].flatten(1) + images.mean()


def test_what_mixes_the_items_of_a_batch_is_found_with_the_largest_pictures_too(watched, tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "USUAL", 0)  # even one picture is more than memory is meant to hold
    pairs = watched[1]
    model = FrozenModel(Together(), image_shape=(3, 8, 8), value_range=(-1.0, 1.0))
    run = Run(tmp_path, seed=0, checkpoint_every=1, console=Console(quiet=True))
    with pytest.raises(ValueError, match=r"encoder: expected latents that do not depend on the other items"):
        check_interpretable(model, _tried(model, pairs, run))
    assert set(pairs.drawn) == {2}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda batch: replace(batch, shared=batch.shared.float()), r"pairs: expected shared to be torch\.bool"),
        (
            lambda batch: replace(batch, images_b=9 * batch.images_b),
            r"pairs: expected values in \[-1, 1\], the model's",
        ),
    ],
    ids=["contract", "range"],
)
def test_pairs_that_are_none_for_the_model_are_refused_before_it_is_tried(watched, tmp_path, change, words):
    model, pairs = watched
    pairs.change = change
    run = Run(tmp_path, seed=0, checkpoint_every=1, console=Console(quiet=True))
    with pytest.raises(ValueError, match=words):
        next(_tried(model, pairs, run))


@pytest.mark.parametrize(
    "weights",
    [{"digit": -1.0}, {"digit": math.inf}, {"digit": 0.0, "colour": 0.0}],
    ids=["negative", "infinite", "no pairs"],
)
def test_weights_of_pairs_that_mean_nothing_are_refused(brief_recipe, tmp_path, weights):
    digits, pairs = write_digits(tmp_path / "digits", seed=0), replace(brief_recipe.pairs, **weights)
    with pytest.raises(ValueError, match=r"pairs: expected finite weights of at least 0, not all 0, got \{"):
        run_recipe(tiny(brief_recipe, digits, pairs=pairs, sizes=BY_HAND), tmp_path / "run", Console(quiet=True))


def test_figures_of_a_users_measure_become_plain_numbers():
    given = Figure(value=torch.tensor(0.5), ceiling=np.float32(0.75), floor=0, meaning="half")
    general = {"swap": Figure(value=1.0, meaning="all")}
    joined = _joined({"mine": given}, general)
    assert joined == {"mine": Figure(value=0.5, ceiling=0.75, floor=0.0, meaning="half")} | general
    assert {type(number) for number in (joined["mine"].value, joined["mine"].ceiling, joined["mine"].floor)} == {float}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, r"measure: expected a dict of Figure by name, got NoneType; return for example \{"),
        ([Figure(value=1.0, meaning="one")], r"measure: expected a dict of Figure by name, got list"),
        ({"mine": 0.5}, r"measure: mine: expected a Figure .* got float; return for example"),
        ({3: Figure(value=0.5, meaning="half")}, r"measure: expected figures by name, got the name 3"),
        ({"mine": Figure(value=0.5, meaning=None)}, r"measure: mine: .* got the meaning None"),
        ({"mine": Figure(value=math.nan, meaning="")}, r"measure: mine: expected one finite number as value, got nan"),
        ({"mine": Figure(value=None, meaning="")}, r"measure: mine: expected one finite number as value, got None"),
        ({"mine": Figure(value=torch.rand(2), meaning="")}, r"measure: mine: .* as value, got tensor\("),
        ({"mine": Figure(value=1, ceiling=math.nan, meaning="")}, r"measure: mine: .* as ceiling, got nan; leave out"),
        ({"mine": Figure(value=1, floor=np.float32("inf"), meaning="")}, r"measure: mine: .* as floor, got .*inf"),
        ({"swap": Figure(value=1.0, meaning="")}, r"measure: expected figures under names of their own, got swap"),
    ],
)
def test_what_a_users_measure_gives_and_no_manifest_takes_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        _joined(given, {"swap": Figure(value=1.0, meaning="all")})


def test_checkpoints_of_other_data_are_refused(brief_recipe, tmp_path):
    first, second = (tiny(brief_recipe, write_digits(tmp_path / str(n), seed=n), sizes=BY_HAND) for n in (1, 2))
    score_recipe(first, tmp_path / "run", Console(quiet=True))  # trains judge and first stage
    with pytest.raises(ValueError, match=r"made with other settings .*data"):
        run_recipe(second, tmp_path / "run", Console(quiet=True))


def test_a_batch_that_the_processes_cannot_share_is_refused_at_once(brief_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "processes", lambda: 3)
    words = r"judge\.optimiser\.batch_size: expected a multiple of the 3 processes, got 4; change it, or torchrun's --n"
    with pytest.raises(ValueError, match=words):
        run_recipe(tiny(brief_recipe, tmp_path / "nothing"), tmp_path / "run", Console(quiet=True))


def classifier_beside(recipe):
    """A recipe of a second for a classifier of the same digits."""
    ours = RECIPES["cmnist-classifier"]()
    how = replace(ours.classifier, width=4, latent_size=8, optimiser=recipe.autoencoder.optimiser)
    return replace(ours, data=recipe.data, classifier=how, transform=recipe.transform)


@pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
def test_the_hidden_layer_of_a_classifier_becomes_a_bundle(brief_recipe, tmp_path):
    schedule = replace(brief_recipe.transform.optimiser, steps=3, batch_size=4)
    recipe = classifier_beside(
        tiny(brief_recipe, write_digits(tmp_path / "digits", seed=0), sizes=BY_HAND, optimiser=schedule)
    )
    bundle = run_recipe(recipe, tmp_path / "run", Console(quiet=True))
    assert set(bundle.manifest.graphs) == {"encoder", "transform", "inverse", "head"}
    assert {"head_accuracy", "digit_response", "colour_shared"} < set(bundle.manifest.evaluation)
    trained = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert trained == {*DigitsPlan(recipe).stages, "transform"} == {"classifier", "transform"}


@pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
def test_t_is_gaussianised_where_it_is_asked_for_and_kept_whatever_that_says(brief_recipe, tmp_path):
    """Factors of an autoencoder; a finished T is not trained again for it."""
    schedule = replace(brief_recipe.transform.optimiser, steps=4, batch_size=4)
    digits, said = write_digits(tmp_path / "digits", seed=0), io.StringIO()

    def run(blocks):
        recipe = tiny(brief_recipe, digits, sizes=BY_HAND, optimiser=schedule, gaussianise=blocks)
        run_recipe(recipe, tmp_path / "run", Console(file=said, width=1000))
        card = (tmp_path / "run/bundle/MODEL_CARD.md").read_text()
        assert ("gaussianisation_gain" in card) is (blocks > 0)
        return {path.name for path in (tmp_path / "run/checkpoints").iterdir()}

    assert run(0) == {"judge", "first_stage", "transform"}
    assert run(2) == {"judge", "first_stage", "transform", "gaussianisation"}
    assert said.getvalue().count("transform: done before, reused") == 1
    with pytest.raises(ValueError, match=r"gaussianise.* 2.* 3|gaussianise.* 3.* 2"):
        run(3)


@pytest.fixture
def told_of(tmp_path, capsys):
    """What `iin-train report` says last of the run."""

    def told_of():
        assert main(["report", str(tmp_path / "run")]) == 0
        return capsys.readouterr().out.splitlines()[-1]

    return told_of


@pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
def test_a_run_whose_blocks_cannot_be_trained_is_finished_without_them(brief_recipe, tmp_path, monkeypatch, told_of):
    schedule = replace(brief_recipe.transform.optimiser, steps=4, batch_size=4)
    recipe = tiny(brief_recipe, write_digits(tmp_path / "digits", seed=0), sizes=BY_HAND, optimiser=schedule)
    losses = iter([torch.ones(1, requires_grad=True), torch.tensor([math.nan])])
    monkeypatch.setattr(gaussianisation, "factor_nll", lambda *_: next(losses))
    told = r"^gaussianisation: loss not finite at step 1; .*--transform\.gaussianise 0 goes on without .*; T is kept$"
    with pytest.raises(FloatingPointError, match=told):
        run_recipe(recipe, tmp_path / "run", Console(quiet=True))
    assert told_of().startswith("reached: gaussianisation, update 1 of ?, no bundle yet")
    without, said = replace(recipe, transform=replace(recipe.transform, gaussianise=0)), io.StringIO()
    run_recipe(without, tmp_path / "run", Console(file=said, width=1000))
    assert "transform: done before, reused" in said.getvalue()
    assert told_of().startswith("finished: iin-serve")


@pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
def test_a_finished_run_is_not_finished_once_another_is_begun(brief_recipe, tmp_path, monkeypatch, told_of):
    schedule = replace(brief_recipe.transform.optimiser, steps=4, batch_size=4)
    digits, run = write_digits(tmp_path / "digits", seed=0), tmp_path / "run"

    def made(name="mine", steps=4, blocks=0):
        optimiser = replace(schedule, steps=steps)
        recipe = tiny(brief_recipe, digits, sizes=BY_HAND, optimiser=optimiser, gaussianise=blocks)
        return run_recipe(replace(recipe, bundle=replace(recipe.bundle, name=name)), run, Console(quiet=True))

    def interrupted(*_):
        raise KeyboardInterrupt

    made()
    finished = told_of()
    with pytest.raises(ValueError, match="made with other settings"):
        made(steps=5)
    assert told_of() == finished  # nothing has changed
    for stopped, stage, changed in (
        ("evaluate", "transform", {"name": "other"}),
        ("_export", "gaussianisation", {"blocks": 1}),
    ):
        with monkeypatch.context() as now:
            now.setattr(pipeline, stopped, interrupted)
            with pytest.raises(KeyboardInterrupt):
                made(**changed)
        assert told_of().startswith(f"reached: the end of {stage}, the bundle may be an earlier one; the same")
        assert made().manifest.name == "mine"
        assert told_of() == finished


def test_a_folder_in_which_another_recipe_has_trained_is_refused_before_anything_is_trained(brief_recipe, tmp_path):
    recipe = tiny(brief_recipe, write_digits(tmp_path / "digits", seed=0), sizes=BY_HAND)
    score_recipe(recipe, tmp_path / "run", Console(quiet=True))  # trains judge and first stage
    said = r"--run-dir: expected .* another recipe, got .*run, which has first_stage, judge; name another"
    with pytest.raises(ValueError, match=said):
        run_recipe(classifier_beside(recipe), tmp_path / "run", Console(quiet=True))
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["first_stage", "judge"]


@pytest.mark.parametrize("start", [run_recipe, score_recipe])
def test_a_folder_in_which_another_run_is_working_is_refused(brief_recipe, tmp_path, start):
    recipe = tiny(brief_recipe, write_digits(tmp_path / "digits", seed=0), sizes=BY_HAND)
    (tmp_path / "run").mkdir()
    with claimed(tmp_path / "run"), pytest.raises(ValueError, match=r"--run-dir: expected .* no other run is working"):
        start(recipe, tmp_path / "run", Console(quiet=True))
    assert not [*(tmp_path / "run").iterdir()]
    score_recipe(recipe, tmp_path / "run", Console(quiet=True))  # what was claimed is free again


def test_a_folder_that_cannot_be_locked_is_used_all_the_same(tmp_path, monkeypatch):
    def without_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    begun = 0
    for _ in range(2):
        with claimed(tmp_path), claimed(tmp_path):
            begun += 1
    assert begun == 2


@pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
def test_a_run_is_finished_once_all_of_it_is_there_and_not_with_other_data(brief_recipe, tmp_path, monkeypatch):
    schedule = replace(brief_recipe.transform.optimiser, steps=3, batch_size=4)
    recipe = tiny(brief_recipe, write_digits(tmp_path / "digits", seed=1), sizes=BY_HAND, optimiser=schedule)
    run = tmp_path / "run"

    def full(*_):
        raise OSError("no space left for curves.png")

    with monkeypatch.context() as changed:
        changed.setattr(pipeline, "draw_curves", full)
        with pytest.raises(OSError, match="no space left"):
            run_recipe(recipe, run, Console(quiet=True))
    first = run_recipe(recipe, run, Console(quiet=True))
    assert (run / "curves.png").is_file()
    assert run_recipe(recipe, run, Console(quiet=True)).manifest == first.manifest
    (run / "settings.json").write_text("")  # as a power cut leaves it
    assert run_recipe(recipe, run, Console(quiet=True)).manifest.factors == first.manifest.factors

    write_digits(tmp_path / "digits", seed=2)
    with pytest.raises(ValueError, match=r"made with other settings .*data\.sha256"):
        run_recipe(recipe, run, Console(quiet=True))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_bears_the_name_that_it_is_called_by(name):
    recipe = RECIPES[name]()
    assert (recipe.name, recipe.bundle.name) == (name, name)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("-paper")])
def test_recipes_of_the_paper_have_its_sizes(name):
    recipe = RECIPES[name]()
    transform = recipe.transform
    assert (transform.blocks, transform.hidden, transform.depth, transform.similarity) == (12, 512, 3, 0.975)
    first = recipe.classifier if name == "cmnist-classifier-paper" else recipe.autoencoder
    assert (first.latent_size, first.width) == (64, 64)
    for optimiser in (transform.optimiser, first.optimiser):
        assert (optimiser.steps, optimiser.batch_size, optimiser.betas) == (120_000, 25, (0.5, 0.9))
        assert optimiser.learning_rate == pytest.approx(25 * 4.5e-6)
    if name != "cmnist-classifier-paper":
        assert (first.perceptual, first.adversary.weight) == ("vgg16", 1.0)
