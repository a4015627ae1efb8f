"""The guide to interpreting one's own model, and a repository of the user's in which its code runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from iin_training.data.digits import load_digits
from iin_training.recipes import find_recipe
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional

GUIDE = (Path(__file__).parents[3] / "docs/OWN_MODEL.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE, re.S)
PYTHON = [block for kind, block in BLOCKS if kind == "python"]
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
TABLES = [re.findall(r"^\| (.*) \|$", part, re.M)[1:] for part in re.findall(r"(?:^\|.*\n)+", GUIDE, re.M)]
SOURCES, REFUSED = ([row.split(" | ") for row in table if not row.startswith("--")] for table in TABLES)
(SIZES,) = re.findall(r"`(--transform.sizes [^`]*)`", GUIDE)
BRIEF = f"--transform.optimiser.steps 30 --transform.blocks 1 --transform.depth 1 --transform.hidden 32 {SIZES}"
BIN = Path(sys.executable).parent
MODEL = """
from torch import nn


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.Tanh(), nn.Linear(64, 12))
        self.decoder = nn.Sequential(
            nn.Linear(12, 64), nn.Tanh(), nn.Linear(64, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28))
        )

    def forward(self, images):
        return self.decoder(self.encoder(images))


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(784, 64)
        self.hidden = nn.Linear(64, 16)
        self.last = nn.Linear(16, 10)

    def forward(self, images):
        return self.last(self.hidden(self.first(images.flatten(1)).relu()).relu())
"""


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    """The user's repository: a package called `training`, trained weights, pictures in folders, and the recipe."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "training").mkdir()
    (folder / "training/__init__.py").write_text("")
    (folder / "training/model.py").write_text(MODEL)
    (folder / "mine.py").write_text(PYTHON[0])
    (folder / "guide.py").write_text(practised_little("\n\n".join(PYTHON)))
    for name, light in (("dim", 90), ("bright", 255)):
        sketch = Image.new("L", (64, 64))
        ImageDraw.Draw(sketch).line([(12, 50), (30, 10), (50, 30), (20, 56)], fill=light, width=6)
        sketch.save(folder / f"{name}.png")
    digits = load_digits(None, held_out=500, seed=0)
    write_pictures(folder / "pictures/train", digits.images[::3], digits.labels[::3])
    write_pictures(folder / "pictures/test", digits.held_out_images, digits.held_out_labels)
    theirs = dict[str, type[nn.Module]]()
    exec(MODEL, theirs)
    networks = {"autoencoder": theirs["Autoencoder"](), "classifier": theirs["Classifier"]()}
    train(networks, torch.from_numpy(digits.images[:, None]).float() / 255, torch.from_numpy(digits.labels))
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / f"{name}.pt")
    for name, example in (("encoder", torch.rand(2, 1, 28, 28)), ("decoder", torch.rand(2, 12))):
        torch.onnx.export(
            getattr(networks["autoencoder"], name),
            (example,),
            folder / f"{name}.onnx",
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return folder


def write_pictures(folder, images, labels):
    """A folder a class; the last digit of a file's name is the class as well."""
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for number, image in enumerate(images[labels == label]):
            Image.fromarray(image).save(folder / str(label) / f"{10 * number + label:05}.png")


def train(networks, images, labels):
    """Both for a moment."""
    parameters = [parameter for network in networks.values() for parameter in network.parameters()]
    optimiser, generator = torch.optim.Adam(parameters, lr=3e-3), torch.Generator().manual_seed(0)
    for _ in range(200):
        rows = torch.randint(len(images), (64,), generator=generator)
        distance = functional.mse_loss(networks["autoencoder"](images[rows]), images[rows])
        loss = 20 * distance + functional.cross_entropy(networks["classifier"](images[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def call(folder, line):
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def brief(line):
    """A command of the guide with few steps, or on a free port."""
    if "iin-serve" in line:
        return line.replace(" -- ", " --port 0 -- ")
    if "iin-train sketches" in line:
        return line.replace("mine.py", "guide.py")  # mine.py holds the first block only
    return f"{line} {BRIEF}"


def practised_little(code):
    """Code of the guide with a network for sketches that takes few steps."""
    return code.replace('"build/sketches")', '"build/sketches", steps=2)')


@pytest.fixture(scope="package")
def finished(folder):
    """What each of the guide's commands said, one after another: a folder takes one of them at a time."""
    return {line: call(folder, brief(line)) for line in COMMANDS}


@pytest.fixture(scope="package")
def guide(folder):
    """The module made of all Python blocks, one after another."""
    before = list(sys.path)
    find_recipe(f"{folder / 'guide.py'}:my_recipe")
    yield sys.modules["iin_recipe_guide"]
    sys.path[:] = before
    for name in ("iin_recipe_guide", "training.model", "training"):
        del sys.modules[name]
