"""A recipe in the user's own file: found by name, its settings as options, its mistakes told with their lines."""

import sys

import pytest
from iin_training.cli import main
from iin_training.recipes import digits, find_recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a user's file and return its path; what it adds to the process is taken away again."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = set(sys.modules)

    def write(text, name="mine.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    yield write
    for name in set(sys.modules) - modules:
        if name.startswith(("iin_recipe_", "beside_")):
            del sys.modules[name]


def test_a_function_of_a_file_is_found_with_what_lies_beside_it(write):
    write("from iin_training.recipes import digits\nLIGHT = 3\n", "beside_mine.py")
    file = write('import beside_mine\ndef ours():\n    """Some digits."""\n    return beside_mine.digits()\n')
    found = find_recipe(f"{file}:ours")
    assert found.__doc__ == "Some digits."
    assert found() == digits()


SOUND = "from iin_training.recipes import digits\nclass Thing: pass\ndef one(): return digits()\ndef _hidden(): pass\n"


@pytest.mark.parametrize(
    ("text", "function", "said"),
    [
        (SOUND, "two", "expected a function 'two' in {file}, found one\n"),
        ("x = 1\n", "two", "expected a function 'two' in {file}, found none\n"),
        (
            "import math\nimport nothing_like_it\n",
            "f",
            "No module named 'nothing_like_it'\n  mine.py:2, in <module>: import nothing_like_it",
        ),
        ("def f(:\n", "f", "SyntaxError"),
        ("raise ValueError('no luck')\n", "f", "got no luck\n  mine.py:1, in <module>: raise ValueError('no luck')"),
    ],
    ids=["no such function", "no function", "import fails", "no Python", "raises"],
)
def test_a_file_without_the_recipe_ends_with_two_and_says_why(write, capsys, text, function, said):
    file = write(text)
    said = said.format(file=file)
    assert main(["run", f"{file}:{function}"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("iin-train: RECIPE: ")
    assert said.split("\n")[0] in told.err
    assert said.removesuffix("\n") in told.err
    assert "Traceback" not in told.err


def test_a_file_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["scores", f"{tmp_path}/none.py:f"]) == 2
    assert f"expected a Python file before ':f', found none at {tmp_path}/none.py" in capsys.readouterr().err


def test_a_file_alone_is_no_recipe(write, capsys):
    file = write(SOUND)
    assert main(["run", str(file)]) == 2
    assert f"or FILE.py:FUNCTION, got '{file}'" in capsys.readouterr().err


def test_a_file_that_failed_can_be_mended_and_tried_again(write):
    file = write("raise KeyError('x')\n")
    with pytest.raises(ValueError, match=r"KeyError: 'x'"):
        find_recipe(f"{file}:one")
    assert "iin_recipe_mine" not in sys.modules
    file.write_text(SOUND + "# longer\n")
    assert find_recipe(f"{file}:one")() == digits()


BESIDE = """
import numpy as np
from iin_training.data.images import ImageArray
from iin_training.pairs import SameLabel

def pairs(labels):
    images = ImageArray(np.zeros((5, 4, 4), np.uint8))
    return SameLabel(images, labels, "digit")
"""
FAULTY = """
import beside_faulty

def other():
    return {"pairs": 3}

def needs(something):
    return something

def key():
    return {}["weights"]

def labels():
    return beside_faulty.pairs([0, 1])
"""


@pytest.mark.parametrize(
    ("function", "lines"),
    [
        ("other", ["expected the function to return an OwnModel, got dict"]),
        ("needs", ["TypeError: needs() missing 1 required positional argument: 'something'"]),
        ("key", ["KeyError: 'weights'", '  faulty.py:11, in key: return {}["weights"]']),
        (
            "labels",
            [
                "labels: expected one for each of the 5 images, got 2",
                "  faulty.py:14, in labels: return beside_faulty.pairs([0, 1])",
                '  beside_faulty.py:8, in pairs: return SameLabel(images, labels, "digit")',
            ],
        ),
    ],
)
@pytest.mark.parametrize("action", ["run", "scores"])
def test_a_mistake_in_the_function_is_told_with_its_line_and_without_a_traceback(
    write, capsys, action, function, lines
):
    write(BESIDE, "beside_faulty.py")
    name = f"{write(FAULTY, 'faulty.py')}:{function}"
    assert main([action, name]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "Traceback" not in told.err
    assert "iin_training/" not in told.err  # lines of ours say nothing to a user
    first, *rest = told.err.splitlines()
    assert first.startswith(f"iin-train: {name}: {lines[0]}")
    assert rest == lines[1:]


LATE = """
import torch
from iin_training.models.frozen import FrozenModel
from iin_training.own_model import OwnModel

class Pairs:
    concepts = ()
    def digest(self):
        return str(id(self))
    def draw(self, count, factors, generator):
        raise KeyError("pictures")

def late():
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4))
    model = FrozenModel(encoder, image_shape=(3, 4, 4), value_range=(0.0, 1.0))
    return OwnModel(name="late", model=model, pairs=Pairs(), held_out=Pairs())
"""


@pytest.mark.parametrize("action", ["run", "scores"])
def test_a_mistake_that_shows_only_while_it_runs_is_told_likewise(write, capsys, action, tmp_path):
    name = f"{write(LATE, 'late.py')}:late"
    assert main([action, name, "--run-dir", str(tmp_path / "run")]) == 1
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert told.splitlines() == [
        "iin-train: KeyError: 'pictures'",
        '  late.py:11, in draw: raise KeyError("pictures")',
    ]


OPTIONS = """
import numpy as np
from dataclasses import dataclass
from torch import nn
from iin_training.data.images import ImageArray
from iin_training.models.frozen import FrozenModel
from iin_training.own_model import OwnModel
from iin_training.pairs import Unrelated

@dataclass
class Theirs:
    images: ImageArray
    concepts: tuple = ()

    def draw(self, count, factors, generator):
        return Unrelated(self.images).draw(count, factors, generator)

def recipe():
    images = ImageArray(np.zeros((40, 4, 4), np.uint8))
    model = FrozenModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), image_shape=(1, 4, 4), value_range=(-1.0, 1.0))
    return OwnModel(name="theirs", model=model, pairs=Theirs(images), held_out=Theirs(images))
"""


def test_settings_are_options_and_models_and_pairs_are_not(write, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", f"{write(OPTIONS)}:recipe", "--help"])
    assert caught.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    for option in ("--run-dir", "--seed", "--version", "--checkpoint-every", "--transform.optimiser.steps"):
        assert option in told
    for other in ("--model", "--pairs", "--held-out", "--measure"):
        assert other not in told


def test_an_option_reaches_the_users_recipe(write, capsys, tmp_path):
    given = ["--run-dir", str(tmp_path / "run"), "--checkpoint-every", "0"]
    assert main(["run", f"{write(OPTIONS)}:recipe", *given]) == 1
    assert "checkpoint_every: expected at least 1 step, got 0" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
