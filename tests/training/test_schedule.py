"""Learning rates as functions of the step alone, and seeds that never meet."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from iin_training.config import Optimiser
from iin_training.run import Run, learning_rate
from rich.console import Console
from torch import nn


def rates(schedule, steps=200):
    how = Optimiser(steps=steps, batch_size=1, learning_rate=0.5, schedule=schedule)
    return [learning_rate(how, step) for step in range(steps)]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(schedule=st.sampled_from(["one_cycle", "linear_end"]), steps=st.integers(1, 300))
def test_a_learning_rate_is_never_negative_nor_above_the_highest(schedule, steps):
    assert all(0 <= rate <= 0.5 for rate in rates(schedule, steps))


def test_one_cycle_warms_up_over_a_tenth_and_falls_to_nothing():
    found = rates("one_cycle")
    assert found[0] == pytest.approx(0.5 * 0.04)
    assert max(found) == found[20] == 0.5
    assert found[:21] == sorted(found[:21])
    assert found[20:] == sorted(found[20:], reverse=True)
    assert found[-1] < 0.5 * 0.001


def test_linear_end_is_constant_for_half_and_then_falls_in_a_line():
    found = rates("linear_end")
    assert found[:101] == [0.5] * 101
    assert found[150] == pytest.approx(0.25)
    assert found[199] == pytest.approx(0.005)


@pytest.mark.parametrize("schedule", ["one_cycle", "linear_end"])
def test_every_update_is_made_at_the_learning_rate_of_its_step(tmp_path, schedule):
    how = Optimiser(steps=30, batch_size=1, learning_rate=0.5, schedule=schedule)
    run = Run(tmp_path, seed=0, checkpoint_every=5, console=Console(quiet=True))
    model = nn.Linear(2, 1)
    for interrupted, expected in ((7, range(8)), (None, range(5, 30))):  # there is a checkpoint at 5
        optimiser = torch.optim.SGD([{"params": [model.weight]}, {"params": [model.bias]}], lr=9.0)
        found = []
        for step in run.steps("stage", model, optimiser, how, {}):
            found.append((step, *(group["lr"] for group in optimiser.param_groups)))
            if step == interrupted:
                break
        assert found == [(step, *[learning_rate(how, step)] * 2) for step in expected]


def test_every_stage_and_step_draws_from_its_own_generator(tmp_path):
    runs = [Run(tmp_path, seed=seed, checkpoint_every=1, console=Console(quiet=True)) for seed in (0, 1)]
    steps = {*range(500), *(2**power for power in range(32)), *(10**power for power in range(10))}
    seeds = [run.seed_of(stage, step) for run in runs for stage in ("judge", "transform") for step in steps]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
