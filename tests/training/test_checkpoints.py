"""Checkpoints that must not be used are refused, and what went wrong never replaces what was right."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from iin_training.checkpoint import load_checkpoint, save_checkpoint
from iin_training.stages import transform
from safetensors.torch import load_file
from torch import nn

from .conftest import Stage

SETTINGS = {"width": 4, "optimiser": {"steps": 5, "betas": [0.9, 0.99]}}


def small(seed=0):
    """A model and an optimiser that has made a few updates."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(seed + 1):
        optimiser.zero_grad()
        model(torch.randn(4, 2)).square().sum().backward()
        optimiser.step()
    return model, optimiser


def weights_of(folder):
    (path,) = folder.glob("step-*.safetensors")
    return path


def test_the_whole_state_of_model_and_optimiser_comes_back(tmp_path):
    model, optimiser = small()
    save_checkpoint(tmp_path, 12, model, optimiser, SETTINGS)
    other, other_optimiser = small(seed=3)
    assert load_checkpoint(tmp_path, other, other_optimiser, SETTINGS) == 12
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    before, after = optimiser.state_dict()["state"], other_optimiser.state_dict()["state"]
    assert before.keys() == after.keys()
    for index in before:
        assert before[index].keys() == after[index].keys()
        assert all(torch.equal(before[index][key], after[index][key]) for key in before[index])


def test_without_a_checkpoint_a_run_starts_at_zero(tmp_path):
    assert load_checkpoint(tmp_path / "nothing", *small(), SETTINGS) == 0


def test_only_the_newest_checkpoint_is_kept(tmp_path):
    save_checkpoint(tmp_path, 1, *small(), SETTINGS)
    save_checkpoint(tmp_path, 2, *small(), SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.json", "step-00000002.safetensors"]


def test_weights_without_their_pointer_do_not_count(tmp_path):
    save_checkpoint(tmp_path, 3, *small(), SETTINGS)
    (tmp_path / "step-00000009.safetensors").write_bytes(b"written when the power went")
    assert load_checkpoint(tmp_path, *small(), SETTINGS) == 3


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({**SETTINGS, "width": 8}, "width: 4 then, 8 now"),
        ({**SETTINGS, "optimiser": {"steps": 6, "betas": [0.9, 0.99]}}, "optimiser.steps: 5 then, 6 now"),
        ({"width": 4}, "optimiser: .* then, None now"),
        ({**SETTINGS, "depth": 1}, "depth: None then, 1 now"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_and_they_are_named(tmp_path, now, words):
    save_checkpoint(tmp_path, 1, *small(), SETTINGS)
    with pytest.raises(ValueError, match=rf"made with other settings \({words}\).*--run-dir"):
        load_checkpoint(tmp_path, *small(), now)


def test_a_stage_refuses_a_checkpoint_of_other_settings(stage, tmp_path):
    stage.train_until(tmp_path, 20)
    with pytest.raises(ValueError, match=r"optimiser\.learning_rate: 0\.001 then, 0\.002 now"):
        stage.train(tmp_path, settings=stage.settings(learning_rate=0.002))


def test_a_stage_refuses_a_checkpoint_of_another_seed(stage, tmp_path):
    stage.train_until(tmp_path, 20)
    with pytest.raises(ValueError, match="seed: 0 then, 1 now"):
        stage.train(tmp_path, seed=1)


@pytest.mark.parametrize("stage", ["transform"], indirect=True)
def test_a_transform_refuses_a_checkpoint_made_on_another_first_stage(stage, tmp_path):
    stage.train_until(tmp_path, 20)
    with torch.no_grad():
        next(stage.encoder.parameters()).add_(0.1)
    with pytest.raises(ValueError, match="made with other settings"):
        stage.train(tmp_path)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def garble(path):
    path.write_bytes(b"not what it was")


def remove_key(path):
    path.write_text(json.dumps({"step": 1}))


@pytest.mark.parametrize(
    ("which", "how"),
    [
        ("step-00000001.safetensors", truncate),
        ("step-00000001.safetensors", garble),
        ("step-00000001.safetensors", lambda path: path.unlink()),
        ("checkpoint.json", truncate),
        ("checkpoint.json", garble),
        ("checkpoint.json", remove_key),
        ("checkpoint.json", lambda path: path.write_bytes(b"\xff\xfe\x00")),
        ("checkpoint.json", lambda path: path.write_text("[]")),
        ("checkpoint.json", lambda path: path.write_text('{"step": "1", "weights": "w", "settings": {}}')),
    ],
    ids=[
        *("cut", "garbled", "missing", "cut json", "garbled json", "json without a key", "not text", "not an object"),
        "not a number",
    ],
)
def test_a_damaged_checkpoint_is_refused_with_the_remedy(tmp_path, which, how):
    save_checkpoint(tmp_path, 1, *small(), SETTINGS)
    how(tmp_path / which)
    with pytest.raises(ValueError, match=rf"expected a whole checkpoint, but {which} does not.*delete this folder"):
        load_checkpoint(tmp_path, *small(), SETTINGS)


@pytest.mark.parametrize("step", [20, 26, 47], ids=["a logged step", "before a checkpoint", "near the end"])
def test_a_loss_that_is_not_finite_stops_with_the_step_and_leaves_a_sound_checkpoint(stage, tmp_path, step):
    def poison(count, images):
        return images * math.nan if count > step + stage.draws_before else images

    told = rf"{stage.name}: loss.* not finite at step {step};"
    with pytest.raises(FloatingPointError, match=told) as stopped:
        stage.train(tmp_path, stage.data(poison))
    folder = tmp_path / "checkpoints" / stage.name
    assert str(stopped.value).endswith(f"delete {folder} or give another --run-dir")
    assert json.loads((folder / "checkpoint.json").read_text())["step"] == step // 15 * 15
    assert all(value.isfinite().all() for value in load_file(weights_of(folder)).values())


def test_a_loss_that_is_not_finite_through_the_images_says_that_the_weights_are_sound(stage, tmp_path):
    with pytest.raises(FloatingPointError, match="all weights are finite, so look at the data of this step"):
        stage.train(tmp_path, stage.data(lambda count, images: images * (math.nan if count == 12 else 1)))


def test_a_loss_that_is_not_finite_through_the_weights_names_them(tmp_path, monkeypatch):
    def spoil(optimiser, clip_norm):
        optimiser.step()
        with torch.no_grad():
            optimiser.param_groups[0]["params"][1].fill_(math.inf)

    monkeypatch.setattr(transform, "update", spoil)
    named = r"loss not finite at step 1; 1 of the network's tensors are not finite, the first is blocks\.0\.log_scale"
    with pytest.raises(FloatingPointError, match=named):
        Stage("transform").train(tmp_path)


def test_an_update_that_spoils_the_weights_is_never_a_checkpoint(tmp_path, monkeypatch):
    steps = []

    def spoil(optimiser, clip_norm):
        optimiser.step()
        steps.append(None)
        if len(steps) == 30:  # the last before a checkpoint, so that no loss has seen it
            with torch.no_grad():
                optimiser.param_groups[0]["params"][0][0] = math.nan

    monkeypatch.setattr(transform, "update", spoil)
    with pytest.raises(FloatingPointError, match=r"transform: 1 of .* blocks\.0\.shift after step 29, though the loss"):
        Stage("transform").train(tmp_path)
    folder = tmp_path / "checkpoints" / "transform"
    assert json.loads((folder / "checkpoint.json").read_text())["step"] == 15
    assert all(value.isfinite().all() for value in load_file(weights_of(folder)).values())


def test_weights_of_another_network_under_the_same_settings_are_refused(tmp_path):
    save_checkpoint(tmp_path, 1, *small(), SETTINGS)
    other = nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5))
    with pytest.raises(ValueError, match=r"expected the weights of this network.*size mismatch.*another --run-dir"):
        load_checkpoint(tmp_path, other, torch.optim.Adam(other.parameters()), SETTINGS)


def test_a_power_cut_at_any_moment_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    """What is on the disk is what was synced: the order of syncs, renames and removals decides."""
    save_checkpoint(tmp_path, 1, *small(), SETTINGS)
    done, sync, replace, unlink = [], os.fsync, Path.replace, Path.unlink

    def noted(what, how):
        def act(path, *args, **kwargs):
            done.append((what, Path(os.readlink(f"/proc/self/fd/{path}") if what == "sync" else path).name))
            return how(path, *args, **kwargs)

        return act

    monkeypatch.setattr(os, "fsync", noted("sync", sync))
    monkeypatch.setattr(Path, "replace", noted("rename", replace))
    monkeypatch.setattr(Path, "unlink", noted("remove", unlink))
    save_checkpoint(tmp_path, 2, *small(), SETTINGS)
    assert done == [
        ("sync", "step-00000002.partial"),
        ("rename", "step-00000002.partial"),
        ("sync", "checkpoint.json.partial"),
        ("sync", tmp_path.name),
        ("rename", "checkpoint.json.partial"),
        ("sync", tmp_path.name),
        ("remove", "step-00000001.safetensors"),
    ]


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    for name in ("step-00000001.partial", "checkpoint.json.partial"):
        (tmp_path / name).write_bytes(b"half")
    save_checkpoint(tmp_path, 2, *small(), SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.json", "step-00000002.safetensors"]
