"""Two processes started by torchrun learn what one learns, and leave one bundle."""

import json
import os
import subprocess
import sys

import pytest
import torch
from iin_bundle import read_bundle
from iin_training import processes
from iin_training.cli import main

from tests.training.test_pipeline import write_digits

STEPS = 60
SMALL = [
    "--data.image-size=8",
    "--data.held-out=10",
    "--data.augmentation.shift=0",
    "--judge.width=4",
    "--autoencoder.width=8",
    "--autoencoder.latent-size=8",
    "--autoencoder.average=0.9",
    "--autoencoder.adversary.weight=0.5",
    "--autoencoder.adversary.width=8",
    "--autoencoder.adversary.stages=2",
    "--transform.blocks=2",
    "--transform.hidden=16",
    "--checkpoint-every=25",
    *(f"--{part}.optimiser.steps={STEPS}" for part in ("judge", "autoencoder", "transform")),
    *(f"--{part}.optimiser.batch-size=16" for part in ("judge", "autoencoder", "transform")),
    "--transform.sizes",
    "digit",
    "2",
    "colour",
    "2",
]


def train(folder, count):
    run = folder / f"run-{count}"
    launcher = [] if count == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    arguments = ["run", "digits", f"--run-dir={run}", f"--data.idx-dir={folder / 'digits'}", *SMALL]
    command = [sys.executable, *launcher, "-m", "iin_training", *arguments]
    told = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert told.returncode == 0, told.stderr[-3000:]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # The judge is left out: its dropout draws a mask for each process.
    return run, [line for line in lines if line["stage"] != "judge"], told.stdout


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    write_digits(folder / "digits", seed=0)
    return train(folder, 1), train(folder, 2)


def test_the_loss_curves_are_those_of_one_process(both):
    (_, one, _), (_, two, _) = both
    assert [(line["stage"], line["step"]) for line in one] == [(line["stage"], line["step"]) for line in two]
    assert {"loss", "error", "kl", "deceived", "adversary"} < set(one[2])  # the adversary joins in at half of the steps
    for alone, together in zip(one, two, strict=True):
        for name in alone.keys() - {"stage", "step", "time"}:
            assert together[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-4), (
                alone["stage"],
                alone["step"],
                name,
            )


def test_one_of_them_writes_and_speaks(both):
    (_, _, alone), (run, _, together) = both
    assert together.count("factor sizes") == alone.count("factor sizes") == 1
    assert read_bundle(run / "bundle").manifest.name == "digits"


def test_more_processes_than_gpus_are_refused_with_the_remedy(monkeypatch, capsys):
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert main(["run", "digits"]) == 2
    told = capsys.readouterr().err
    assert "--nproc-per-node: expected at most a process for each GPU, 1 here, got 2; start fewer, or put CUDA_" in told


def test_a_process_computes_its_own_rows_of_both_sides_only(monkeypatch):
    monkeypatch.setattr(processes, "processes", lambda: 2)
    monkeypatch.setattr(processes.distributed, "get_rank", lambda: 1)
    seen = []

    def double(rows):
        seen.append(rows)
        return 2 * rows

    first, second = torch.arange(1.0, 5.0)[:, None], torch.arange(5.0, 9.0)[:, None]
    rows = processes.of_share(double, first, second)
    assert torch.cat(seen)[:, 0].tolist() == [3, 4, 7, 8]
    assert rows[:, 0].tolist() == [0, 0, 6, 8, 0, 0, 14, 16]
    for side, whole in zip(rows.chunk(2), (first, second), strict=True):
        assert torch.equal(*processes.share(side), 2 * whole[2:])
