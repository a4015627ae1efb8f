"""The command `iin-train`: it teaches, refuses what is wrong, and hands overrides to the recipe."""

import subprocess
import sys
from pathlib import Path

import pytest
from iin_training.cli import main
from iin_training.recipes import RECIPES


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
        (
            ["run", "nothing"],
            f"RECIPE: expected one of {', '.join(RECIPES)}, or FILE.py:FUNCTION",
        ),
    ],
    ids=["no recipe", "unknown command", "unknown recipe"],
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


def test_a_failure_is_told_on_the_error_stream(capsys, tmp_path):
    assert main(["run", "digits", "--run-dir", str(tmp_path), "--data.held-out", "0"]) == 1
    assert "data.held_out" in capsys.readouterr().err


def test_the_module_runs_as_a_program():
    result = subprocess.run(
        [sys.executable, "-m", "iin_training.cli", "run", "nothing"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "expected one of" in result.stderr
