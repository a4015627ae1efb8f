"""How far a stage or a computation is: a bar on a terminal, plain lines now and then in a file or a pipe."""

import io
import re

import pytest
import torch
from iin_training import progress
from iin_training import run as running
from iin_training.config import Optimiser
from iin_training.progress import late_bar
from iin_training.run import Run
from rich.console import Console


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains three updates and returns what a console says of it, told about after every one."""
    monkeypatch.setattr(running, "TELL_EVERY", 0.0)

    def train(width, **console):
        said = io.StringIO()
        run = Run(tmp_path, seed=0, checkpoint_every=10, console=Console(file=said, width=width, **console))
        model = torch.nn.Linear(2, 2)
        optimiser, schedule = torch.optim.Adam(model.parameters()), Optimiser(steps=3, batch_size=2, learning_rate=1e-3)
        for step in run.steps("judge", model, optimiser, schedule, {}):
            run.record("judge", step, loss=torch.tensor(0.5), a_long_name=torch.tensor(0.25))
        return said.getvalue()

    return train


def test_without_a_terminal_a_line_says_stage_update_time_left_and_losses(train):
    lines = [line for line in train(40).splitlines() if "update" in line]
    assert len(lines) == 3
    for number, line in enumerate(lines, 1):
        told = rf"judge: update {number} of 3, (\?|\d+:\d\d:\d\d) left  loss 0\.5  a_long_name 0\.25"
        assert re.fullmatch(told, line)


def test_on_a_terminal_the_bar_says_it_alone(train, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    said = train(200, force_terminal=True, force_interactive=True)
    assert "3/3" in said
    assert "update" not in said


def done(**console):
    """What is shown of forty items done at once."""
    console = Console(file=io.StringIO(), **console)
    with late_bar("features", 40, console) as advance:
        advance(40)
    return console.file.getvalue()


@pytest.mark.parametrize(("silent", "shown"), [(0.0, True), (60.0, False)])
def test_a_bar_is_shown_once_it_takes_long(monkeypatch, silent, shown):
    monkeypatch.setattr(progress, "SILENT_SECONDS", silent)
    assert ("features" in done(force_terminal=True, width=80)) == shown


def test_a_bar_that_was_never_shown_leaves_nothing_in_a_file():
    assert done() == ""
