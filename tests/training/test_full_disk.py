"""A disk that is full stops a run with what to do; nothing that was there is lost, and the run goes on afterwards."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
import torch
from iin_training import checkpoint, cli
from iin_training.checkpoint import load_checkpoint, save_checkpoint
from iin_training.flows import interpretation_flow
from iin_training.graphs import check_exportable, write_graph
from iin_training.models.frozen import FrozenModel
from iin_training.run import Run
from rich.console import Console
from safetensors import SafetensorError
from torch import nn

from tests.training.test_resuming import equal

FULL = Path("/dev/full")  # what is written there fails as on a full disk
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
TRANSFORM = pytest.mark.parametrize("stage", ["transform"], indirect=True)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 400 kB; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@TRANSFORM
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_and_the_run_goes_on(stage, tmp_path, monkeypatch):
    def full(tensors, path):
        path.write_bytes(b"as much as there was room for")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    whole = stage.train(tmp_path / "whole")
    stage.train_until(tmp_path / "cut", 20)
    folder = tmp_path / "cut" / "checkpoints" / stage.name
    with monkeypatch.context() as changed:
        changed.setattr(checkpoint, "save_file", full)
        with pytest.raises(OSError, match=r"step-00000030.*could not be written .*No space left.*before it is kept"):
            stage.train(tmp_path / "cut")
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.json", "step-00000015.safetensors"]
    assert equal(stage.train(tmp_path / "cut"), whole)


def test_weights_are_really_refused_by_a_small_disk(small_disk):
    small, large = (interpretation_flow(4, blocks=1, hidden=hidden, depth=1, seed=0) for hidden in (8, 30_000))
    save_checkpoint(small_disk, 1, small, torch.optim.Adam(small.parameters()), {})
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(small_disk, 2, large, torch.optim.Adam(large.parameters()), {})
    assert load_checkpoint(small_disk, small, torch.optim.Adam(small.parameters()), {}) == 1
    assert sorted(path.name for path in small_disk.iterdir()) == ["checkpoint.json", "step-00000001.safetensors"]


@TRANSFORM
def test_dropping_lines_of_undone_steps_never_loses_the_others(stage, tmp_path):
    stage.train_until(tmp_path, 33)
    metrics, partial = tmp_path / "metrics.jsonl", tmp_path / "metrics.partial"
    before = metrics.read_text()
    partial.symlink_to(FULL)
    with pytest.raises(OSError, match="No space left"):
        stage.train(tmp_path)
    assert metrics.read_text() == before


def test_a_line_of_metrics_that_does_not_fit_stops_the_run(tmp_path):
    run = Run(tmp_path, seed=0, checkpoint_every=1, console=Console(quiet=True))
    run.metrics_path = FULL
    with pytest.raises(OSError, match="No space left"):
        run.record("transform", 0, loss=torch.tensor(1.0))


def test_a_graph_that_does_not_fit_is_no_fault_of_the_network(small_disk):
    flow = interpretation_flow(16, blocks=4, hidden=128, depth=2, seed=0).eval()
    with pytest.raises(OSError, match="No space left") as caught:
        write_graph("transform", flow, small_disk / "t.onnx", torch.randn(32, 16))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.__cause__ is None  # a chain that leads back to the error has no end


@pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
def test_a_disk_too_small_for_the_model_is_told_before_anything_is_trained(small_disk):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 4000))
    model = FrozenModel(encoder, image_shape=(1, 8, 8), value_range=(0.0, 1.0))
    with pytest.raises(OSError, match="No space left"):
        check_exportable(model, torch.rand(32, 1, 8, 8), small_disk)
    assert not [*small_disk.iterdir()]


@pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
def test_what_a_killed_trial_left_is_gone_after_the_next(tmp_path):
    (tmp_path / "tried-0").mkdir()
    (tmp_path / "tried-0" / "encoder.onnx").touch()
    model = FrozenModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), image_shape=(1, 8, 8), value_range=(0.0, 1.0))
    check_exportable(model, torch.rand(32, 1, 8, 8), tmp_path)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OSError(f"weights: not written ({os.strerror(errno.ENOSPC)})")],
    ids=["of the system", "of a checkpoint"],
)
def test_the_command_says_what_to_do_about_it(error, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise error

    monkeypatch.setattr(cli, "run_recipe", full)
    assert cli.main(["run", "digits", "--run-dir", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert f"make room for {tmp_path} and run the same command again" in told.replace("\n", "")


def test_other_faults_of_files_are_told_as_they_are(tmp_path, monkeypatch, capsys):
    def denied(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "here")

    monkeypatch.setattr(cli, "run_recipe", denied)
    assert cli.main(["run", "digits", "--run-dir", str(tmp_path)]) == 1
    assert "make room" not in capsys.readouterr().err
