"""The command `iin-train`: it teaches, refuses what is wrong, and hands overrides to the recipe."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from iin_bundle import read_bundle
from iin_training import cli
from iin_training.cli import main
from iin_training.recipes import RECIPES
from iin_training.stages.transform import SizeScores


def words(captured):
    return " ".join((captured.out + " " + captured.err).split())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["run", "--help"]], ids=" ".join)
def test_help_names_every_recipe_with_its_docstring(arguments, capsys):
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: iin-train run RECIPE")
    for name, recipe in RECIPES.items():
        assert f"  {name}" in text
        assert recipe.__doc__.splitlines()[0] in text


@pytest.mark.parametrize("recipe", RECIPES)
def test_help_of_a_recipe_explains_every_option_and_its_default(recipe, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", recipe, "--help"])
    assert caught.value.code == 0
    text = words(capsys.readouterr())
    for option in ("--run-dir", "--seed", "--transform.similarity", "--transform.optimiser.steps"):
        assert option in text
    assert ("--data.source" in text) == hasattr(RECIPES[recipe](), "data")
    assert "Correlation of shared factors in a pair" in text
    assert str(RECIPES[recipe]().transform.optimiser.steps) in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "usage: iin-train run RECIPE"),
        (["walk"], "usage: iin-train run RECIPE"),
        (["rum", "digits"], "iin-train: COMMAND: expected one of run, scores, sketches, report, got 'rum'\n"),
        (
            ["run", "nothing"],
            f"iin-train: RECIPE: expected one of {', '.join(RECIPES)}, or FILE.py:FUNCTION",
        ),
    ],
    ids=["no recipe", "unknown command", "mistyped command", "unknown recipe"],
)
def test_wrong_usage_ends_with_two_and_the_reason_on_the_error_stream(arguments, said, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--transfrm.blocks", "3"], "--transfrm.blocks"),
        (["--transform.blocks", "many"], "many"),
        (["--transform.optimiser.schedule", "none"], "one_cycle"),
    ],
    ids=["unknown option", "not a number", "not a choice"],
)
def test_a_wrong_option_ends_with_two_and_is_named(option, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", "digits", *option])
    assert caught.value.code == 2
    assert said in words(capsys.readouterr())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (["--data.held-out", "6000"], "data.held_out: expected between 1 and 4999 of 5000 pictures, got 6000"),
        (["--data.held-out", "5"], "data.held_out: expected enough pictures for pairs of them, got 5 (digit: expected"),
        (["--data.image-size", "16"], "data.image_size: expected at least 28 for pictures of 28x28, got 16"),
        (["--data.idx-dir", "nowhere"], "data.idx_dir: expected train-images-idx3-ubyte"),
    ],
)
def test_an_override_reaches_the_recipe_and_a_bad_value_ends_with_one(override, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "digits", "--run-dir", "run", *override]) == 1
    assert said in words(capsys.readouterr())
    assert not Path("run/bundle").exists()


def test_brackets_in_a_message_are_not_taken_for_formatting(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "digits", "--run-dir", "run", "--data.idx-dir", "my[bold]data"]) == 1
    assert "my[bold]data" in words(capsys.readouterr())


def test_a_users_concept_is_not_taken_for_formatting(capsys, tmp_path, monkeypatch):
    scores = {"residual": 1.0, "speed [m/s]": 0.5, "rate [/s]": 0.5, "a:x:b": 0.5}
    monkeypatch.setattr(cli, "score_recipe", lambda *_: SizeScores(scores, scores, 32))
    assert main(["scores", "digits", "--run-dir", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "│ speed [m/s] │" in told
    assert "│ rate [/s]   │" in told
    assert "│ a:x:b       │" in told, "no emoji"


def test_what_to_run_next_is_told_in_one_line_however_long_the_path(digits_bundle, capsys, tmp_path, monkeypatch):
    far = Path("/", *["a folder"] * 20, "runs [v2]", "bundle")
    bundle = replace(read_bundle(digits_bundle), directory=far)
    monkeypatch.setattr(cli, "run_recipe", lambda *_: bundle)
    assert main(["run", "digits", "--run-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith(f"meanings: {far}/MODEL_CARD.md\nserve it with: iin-serve {far}\n")


def test_a_failure_is_told_on_the_error_stream(capsys, tmp_path):
    assert main(["run", "digits", "--run-dir", str(tmp_path), "--data.held-out", "0"]) == 1
    assert "data.held_out" in capsys.readouterr().err


OWN = """import torch
from iin_training.models.frozen import FrozenModel
from iin_training.own_model import OwnModel
from iin_training.recipes import digits

class Pairs:
    concepts = ("digit",)
    def draw(self, count, factors, generator):
        {mistake}

def mine():
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))
    model = FrozenModel(encoder, image_shape=(1, 4, 4), value_range=(0.0, 1.0))
    return OwnModel(name="mine", model=model, pairs=Pairs(), held_out=Pairs())
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a user's file with a mistake that is met while the recipe runs; returns the recipe's name."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)

    def write(mistake, function="mine"):
        (tmp_path / "own_mine.py").write_text(OWN.format(mistake=mistake))
        return f"own_mine.py:{function}"

    yield write
    sys.modules.pop("iin_recipe_own_mine", None)


@pytest.mark.parametrize(
    "mistake",
    ["torch.zeros(2) @ torch.zeros(3)", "open('nothing.txt')", "raise ValueError('no luck')", "[][0]"],
    ids=["RuntimeError", "OSError", "ValueError", "IndexError"],
)
def test_a_mistake_in_a_users_file_is_told_with_its_line(mistake, own, capsys):
    assert main(["run", own(mistake), "--run-dir", "run"]) == 1
    assert f"\n  own_mine.py:9, in draw: {mistake}\n" in capsys.readouterr().err


def test_a_mistake_in_a_users_file_that_we_describe_is_told_with_its_line(own, capsys, monkeypatch):
    def describe(recipe, *_):
        try:
            recipe.pairs.draw(2, (), None)
        except RuntimeError as error:
            raise ValueError(f"pairs: expected pairs, got: {error}; check them") from error

    monkeypatch.setattr(cli, "run_recipe", describe)
    assert main(["run", own("raise RuntimeError('no luck')"), "--run-dir", "run"]) == 1
    told = capsys.readouterr().err
    assert "got: no luck; check them\n  own_mine.py:9, in draw: raise RuntimeError('no luck')\n" in told


def test_an_error_that_was_raised_from_itself_is_told_all_the_same(own, capsys, monkeypatch):
    def circular(*_):
        error = OSError("no luck")
        raise error from error

    monkeypatch.setattr(cli, "run_recipe", circular)
    assert main(["run", own("pass"), "--run-dir", "run"]) == 1
    assert capsys.readouterr().err == "iin-train: no luck\n"


def test_a_refusal_that_no_line_of_the_users_led_to_names_none(own, capsys):
    assert main(["run", own("pass", "digits"), "--run-dir", "run", "--data.held-out", "0"]) == 1
    told = capsys.readouterr().err
    assert "data.held_out" in told
    assert "own_mine.py:" not in told


def test_the_module_runs_as_a_program():
    result = subprocess.run(
        [sys.executable, "-m", "iin_training", "run", "nothing"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "expected one of" in result.stderr


def test_help_ends_quietly_where_its_reader_has_seen_enough():
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "iin_training", "--help"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


STOP = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"


@pytest.mark.parametrize("file", ["tyro.py", "mine.py"], ids=["of ours", "of the user's file"])
def test_an_interruption_of_an_import_is_told_in_a_line(file, tmp_path, monkeypatch):
    (tmp_path / file).write_text(STOP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = subprocess.run(
        [sys.executable, "-m", "iin_training", "run", f"{tmp_path}/mine.py:mine"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "iin-train: interrupted\n")


def test_an_interruption_says_whether_there_is_something_to_go_on_from(capsys, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_recipe", interrupted)
    arguments = ["run", "digits", "--run-dir", str(tmp_path)]
    assert main(arguments) == 130
    told = f"interrupted before the first checkpoint in {tmp_path}; run the same command again\n"
    assert capsys.readouterr().out == told
    (tmp_path / "checkpoints/judge").mkdir(parents=True)
    (tmp_path / "checkpoints/judge/checkpoint.json").write_text("{}")
    assert main(arguments) == 130
    assert f"again to go on from the last checkpoint in {tmp_path}\n" in capsys.readouterr().out


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_run_directory_that_cannot_be_made_is_told_with_the_remedy(below, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert main(["run", "digits", "--run-dir", f"{tmp_path}/file{below}"]) == 1
    told = capsys.readouterr().err
    field = f"iin-train: --run-dir: expected a folder that can be made and written to, got {tmp_path}/file{below} ("
    assert told.startswith(field)
    assert told.endswith("; name another\n")
    assert "Errno" not in told


def test_a_run_directory_that_cannot_be_written_to_is_told_with_the_remedy(capsys, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "metrics.jsonl"))

    monkeypatch.setattr(cli, "run_recipe", refused)
    assert main(["run", "digits", "--run-dir", str(tmp_path)]) == 1
    told = f"got {tmp_path} (Read-only file system: {tmp_path}/metrics.jsonl); name another"
    assert told in capsys.readouterr().err
