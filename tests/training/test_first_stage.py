"""The losses of the first stage, what is averaged, what stays, and who prepares its batches."""

import itertools
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from iin_training import config
from iin_training.data.augmentation import Augmentation
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.models.discriminator import PatchDiscriminator
from iin_training.models.perceptual import PerceptualDistance
from iin_training.run import Run
from iin_training.stages.first_stage import (
    FIXED_STATISTICS_FROM,
    LARGEST_WEIGHT,
    _backward,
    _hinge_loss,
    _reconstruction,
    train_first_stage,
)
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from tests.training.conftest import Blobs, Stage, optimiser


@pytest.fixture
def first_stage():
    return Stage("first_stage")


def metrics(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def checkpoint(directory):
    (path,) = (directory / "checkpoints/first_stage").glob("step-*.safetensors")
    return load_file(path)


def test_batches_prepared_by_workers_are_the_same(first_stage, tmp_path):
    alone = first_stage.train(tmp_path / "alone")
    settings = replace(first_stage.settings(), workers=2)
    together = first_stage.train(tmp_path / "together", settings=settings)
    assert all(torch.equal(alone[name], together[name]) for name in alone)


def test_workers_are_no_setting_of_a_checkpoint(first_stage, tmp_path):
    whole = first_stage.train(tmp_path / "whole")
    first_stage.train_until(tmp_path / "cut", 44)
    resumed = first_stage.train(tmp_path / "cut", settings=replace(first_stage.settings(), workers=1))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_adversary_joins_in_late(first_stage, tmp_path):
    seen = []

    def look(count, images):
        if count > 1:
            seen.append({n: v for n, v in checkpoint(tmp_path).items() if n.startswith("model/adversary")})
        return images

    first_stage.train(tmp_path, first_stage.data(look), every=1)
    weights = [name for name in seen[0] if name.endswith("original")]
    still = [all(torch.equal(a[name], b[name]) for name in weights) for a, b in itertools.pairwise(seen)]
    assert still == [step < 14 for step in range(len(still))]  # a share of 0.3 of 50 steps; from the 2nd update on
    assert ["adversary" in line for line in metrics(tmp_path)] == [False, True, True]  # steps 0, 20, 40


def test_the_result_is_the_running_average_of_the_weights(first_stage, tmp_path):
    states = []

    def look(count, images):
        if count > 1:
            states.append(checkpoint(tmp_path))
        return images

    settings = first_stage.settings(steps=6)
    result = first_stage.train(tmp_path, first_stage.data(look), every=1, settings=settings)
    states.append(checkpoint(tmp_path))
    for name, value in result.items():
        if value.dtype == torch.float32:
            expected = states[0][f"model/autoencoder.{name}"]
            for state in states[1:]:
                expected = 0.9 * expected + 0.1 * state[f"model/autoencoder.{name}"]
            torch.testing.assert_close(value, expected)


def test_statistics_of_batch_normalisation_stay_after_a_tenth_of_the_steps_while_weights_learn(first_stage, tmp_path):
    states = []

    def look(count, images):
        if count > 1:
            states.append({n: v for n, v in checkpoint(tmp_path).items() if n.startswith("model/autoencoder.")})
        return images

    first_stage.train(tmp_path, first_stage.data(look), every=1, settings=first_stage.settings(steps=40))
    limit = FIXED_STATISTICS_FROM * 40
    for step, (before, after) in enumerate(itertools.pairwise(states), start=1):
        changed = {name.rpartition(".")[2] for name in after if not torch.equal(before[name], after[name])}
        statistics = {"running_mean", "running_var", "num_batches_tracked"}
        assert changed == {"weight", "bias"} | (statistics if step < limit else set()), step
    counts = {int(value) for name, value in states[-1].items() if name.endswith("num_batches_tracked")}
    assert counts == {limit}


@pytest.mark.parametrize(
    ("distance", "expected"),
    [(None, 0.5 / 0.2 + math.log(0.4)), ([0.25, 0.75], (0.5 + 3 * 0.5) / 0.2 + math.log(0.4))],
    ids=["alone", "with a perceptual distance"],
)
def test_a_reconstruction_costs_its_distance_over_the_scale_and_the_logarithm_of_twice_the_scale(distance, expected):
    images = torch.zeros(2, 1, 1, 2)
    decoded = torch.tensor([0.1, -0.9, 0.3, 0.7]).view(2, 1, 1, 2)
    terms, loss = _reconstruction(
        config.Autoencoder(perceptual_weight=3.0, optimiser=optimiser()),
        SimpleNamespace(log_scale=torch.tensor(math.log(0.2))),
        None if distance is None else lambda decoded, images: torch.tensor(distance),
        images,
        decoded,
    )
    assert float(loss) == pytest.approx(expected)
    told = {"error": 0.5} if distance is None else {"error": 0.5, "perceptual": 0.5}
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(told)


def test_the_hinge_loss_asks_for_real_patches_above_one_and_made_ones_below_minus_one():
    logits = nn.Identity()
    assert float(_hinge_loss(logits, torch.tensor([3.0, 0.5]), torch.tensor([-4.0, 1.0]))) == 0.5 * (0.25 + 1.0)
    assert float(_hinge_loss(logits, torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -2.0]))) == 0


@pytest.mark.parametrize(
    ("slope", "expected"), [(0.5, 10.0), (20.0, 0.25), (0.0, LARGEST_WEIGHT)], ids=["smaller", "larger", "none"]
)
@pytest.mark.parametrize("learnt", [True, False], ids=["variance learnt", "variance fixed"])
def test_the_adversarial_gradient_is_made_as_large_as_that_of_the_reconstruction(slope, expected, learnt):
    scale = nn.Parameter(torch.tensor(0.3), requires_grad=learnt)
    weight, before = nn.Parameter(torch.ones(2)), nn.Parameter(torch.tensor(2.0))
    model = SimpleNamespace(last_weight=weight, log_scale=scale)

    def losses():
        decoded = before / 2 * weight
        return decoded, (decoded * torch.tensor([3.0, -4.0])).sum() + scale.exp(), slope * decoded[1], 7 * before

    decoded, reconstruction, deceived, rest = losses()
    trained = [parameter for parameter in (weight, before, scale) if parameter.requires_grad]
    _backward(model, trained, decoded, reconstruction, deceived, 0.5, rest)
    found = [parameter.grad for parameter in trained]
    _, reconstruction, deceived, rest = losses()
    wanted = torch.autograd.grad(reconstruction + 0.5 * expected * deceived + rest, trained)
    torch.testing.assert_close(found, list(wanted), rtol=1e-3, atol=1e-4)
    assert len(found) == 2 + learnt


def test_every_weight_of_the_discriminator_has_spectral_norm_one():
    torch.manual_seed(0)
    network = PatchDiscriminator(channels=3, width=8, stages=3)
    for _ in range(50):  # of the power iteration
        logits = network(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 1, 4, 4)
    norms = [
        torch.linalg.matrix_norm(layer.weight.flatten(1), 2) for layer in network.layers if hasattr(layer, "weight")
    ]
    torch.testing.assert_close(torch.stack(norms), torch.ones(4), rtol=1e-2, atol=0)


def trained(directory, **changed):
    """The autoencoder after a few steps on 32x32 pictures, and its metrics."""
    pictures = Blobs()
    data = ColouredDigits(
        (pictures.grey[:, 0].repeat_interleave(4, 1).repeat_interleave(4, 2) * 255).byte().numpy(),
        pictures.labels.numpy(),
        size=32,
        augmentation=Augmentation(),
    )
    settings = {"width": 4, "latent_size": 8, "noise_scale": 0.2, "optimiser": optimiser(steps=80, learning_rate=5e-3)}
    run = Run(directory, seed=0, checkpoint_every=100, console=Console(quiet=True))
    model = train_first_stage(
        config.Autoencoder(**settings | changed),
        lambda count, generator: data.batch(count, generator)[0],
        image_shape=(3, 32, 32),
        run=run,
    )
    images = data.batch(32, torch.Generator().manual_seed(1))[0]
    return model, images, metrics(directory)


def test_the_perceptual_distance_is_learnt_where_it_is_asked_for(tmp_path):
    distance = PerceptualDistance("alex")
    plain, images, lines = trained(tmp_path / "plain")
    assert "perceptual" not in lines[0]
    with_it, _, lines = trained(tmp_path / "with", perceptual="alex", perceptual_weight=4.0)
    assert lines[-1]["perceptual"] < lines[0]["perceptual"]
    far, near = (float(distance(model.decode(model.encode(images)), images).mean()) for model in (plain, with_it))
    assert near < 0.95 * far


def test_bfloat16_trains_to_about_the_same(tmp_path):
    _, _, exact = trained(tmp_path / "exact")
    model, _, rough = trained(tmp_path / "rough", precision="bfloat16")
    assert all(value.dtype == torch.float32 for value in model.parameters())
    assert rough[-1]["error"] == pytest.approx(exact[-1]["error"], rel=0.1)
    assert rough[-1]["error"] != exact[-1]["error"]
