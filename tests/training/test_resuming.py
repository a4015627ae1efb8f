"""A seed decides a run, and an interruption changes nothing in its result."""

import json

import pytest
import torch

FIRST_STAGE = pytest.mark.parametrize("stage", ["first_stage"], indirect=True)


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def metrics(directory, stage):
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines if line["stage"] == stage]


def test_a_seed_and_nothing_else_decides_a_run_to_the_last_bit(stage, tmp_path):
    torch.manual_seed(1)  # the global generator is somebody else's
    first = stage.train(tmp_path / "first", seed=1)
    torch.manual_seed(2)
    assert equal(stage.train(tmp_path / "again", seed=1), first)
    assert not equal(stage.train(tmp_path / "other", seed=2), first)


@pytest.mark.parametrize("step", [7, 44], ids=["before any checkpoint", "after one"])
def test_an_interrupted_run_ends_like_one_that_was_not(stage, tmp_path, step):
    whole = stage.train(tmp_path / "whole")
    stage.train_until(tmp_path / "cut", step)
    assert equal(stage.train(tmp_path / "cut"), whole)


@FIRST_STAGE
def test_a_run_can_be_interrupted_twice(stage, tmp_path):
    whole = stage.train(tmp_path / "whole")
    stage.train_until(tmp_path / "cut", 20)
    stage.train_until(tmp_path / "cut", 20)  # of those that were left
    assert equal(stage.train(tmp_path / "cut"), whole)


@FIRST_STAGE
def test_a_resumed_run_goes_on_from_its_checkpoint(stage, tmp_path):
    stage.train_until(tmp_path, 44)
    (tmp_path / "metrics.jsonl").unlink()
    stage.train(tmp_path)
    assert [line["step"] for line in metrics(tmp_path, stage.name)] == [40]  # the checkpoint held 30 updates


def test_metrics_after_a_resumption_are_those_of_a_whole_run(stage, tmp_path):
    stage.train(tmp_path / "whole")
    stage.train_until(tmp_path / "cut", 44)  # step 40 was written, and is undone by the checkpoint at 30
    assert [line["step"] for line in metrics(tmp_path / "cut", stage.name)] == [0, 20, 40]
    stage.train(tmp_path / "cut")
    assert metrics(tmp_path / "cut", stage.name) == metrics(tmp_path / "whole", stage.name)
    assert [line["step"] for line in metrics(tmp_path / "cut", stage.name)] == [0, 20, 40]


@FIRST_STAGE
def test_a_line_of_metrics_cut_short_is_forgotten(stage, tmp_path):
    stage.train_until(tmp_path, 44)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "jud')
    stage.train(tmp_path)
    assert [line["step"] for line in metrics(tmp_path, stage.name)] == [0, 20, 40]


def test_a_finished_stage_is_reused_as_it_is(stage, tmp_path):
    whole = stage.train(tmp_path)
    written = (tmp_path / "metrics.jsonl").read_text()
    assert equal(stage.train(tmp_path), whole)
    assert (tmp_path / "metrics.jsonl").read_text() == written
