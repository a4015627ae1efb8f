"""The guide to interpreting one's own model, word by word: every block of code runs in a repository of the user's."""

import csv
import itertools
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from iin_bundle import FactorLayout, read_bundle
from iin_training.data.digits import load_digits
from iin_training.data.images import ImageArray
from iin_training.flows import interpretation_flow
from iin_training.models.cut import cut
from iin_training.models.frozen import FrozenModel
from iin_training.own_model import OwnModel
from iin_training.pairs import MIN_PAIRS, SameLabel, Unrelated
from iin_training.pipeline import run_recipe
from iin_training.recipes import find_recipe
from iin_training.run import Run
from iin_training.stages.transform import score_concepts, train_transform
from PIL import Image, ImageDraw
from rich.console import Console
from torch import nn
from torch.nn import functional

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
GUIDE = (Path(__file__).parents[2] / "docs/OWN_MODEL.md").read_text()
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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def finished(folder):
    """What each of the guide's commands said; scores and run write to different places, so they go side by side."""
    training = [line for line in COMMANDS if line.startswith("iin-train")]
    with ThreadPoolExecutor() as side_by_side:
        said = dict(zip(training, side_by_side.map(lambda line: call(folder, brief(line)), training), strict=True))
    return said | {line: call(folder, brief(line)) for line in COMMANDS if line not in training}


@pytest.fixture(scope="module")
def guide(folder):
    """The module made of all Python blocks, one after another."""
    before = list(sys.path)
    find_recipe(f"{folder / 'guide.py'}:my_recipe")
    yield sys.modules["iin_recipe_guide"]
    sys.path[:] = before
    for name in ("iin_recipe_guide", "training.model", "training"):
        del sys.modules[name]


def test_the_first_recipe_is_whole_and_has_thirty_lines_at_most():
    lines = [line for line in PYTHON[0].splitlines() if line.strip()]
    assert len(lines) <= 30
    assert max(map(len, "".join(PYTHON).splitlines())) <= 120


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_runs(finished, line):
    result = finished[line]
    assert result.returncode == 0, result.stdout + result.stderr
    said = {
        "scores": "share of the variance",
        "sketches": "light: build/sketched/sketches-light.png",
        "run": "digit_edit_taken",
        "build/mine/bundle": "mine",
    }
    assert said[shlex.split(line)[1]] in result.stdout


def test_the_bundle_is_whole_and_has_the_concept_as_a_factor(folder, finished):
    manifest = read_bundle(folder / "build/mine/bundle").manifest
    assert {part.name: part.size for part in manifest.layout} == {"residual": 8, "digit": 4}
    assert set(manifest.graphs) == {"encoder", "transform", "inverse", "decoder"}
    assert (manifest.name, manifest.provenance.recipe) == ("mine", "mine")
    assert (manifest.image.shape, manifest.image.minimum, manifest.image.maximum) == ((1, 28, 28), 0.0, 1.0)


def test_the_bundle_answers_as_the_users_own_network_does(folder, finished, guide):
    bundle = read_bundle(folder / "build/mine/bundle")
    sessions = {
        role: onnxruntime.InferenceSession(bundle.graph_path(role), providers=["CPUExecutionProvider"])
        for role in bundle.manifest.graphs
    }
    pictures = sorted((folder / "pictures/test").rglob("*.png"))[:7]
    images = np.stack([np.asarray(Image.open(file), np.float32)[None] / 255 for file in pictures])
    (latents,) = sessions["encoder"].run(None, {"image": images})
    factors, _ = sessions["transform"].run(None, {"latent": latents})
    back, _ = sessions["inverse"].run(None, {"factors": factors})
    (shown,) = sessions["decoder"].run(None, {"latent": back})
    model = guide.my_recipe().model
    expected = model.decode(model.encode(torch.from_numpy(images)))
    np.testing.assert_allclose(shown, expected.numpy(), atol=1e-3)


def test_the_users_package_called_training_and_ours_live_in_one_process(folder, guide):
    assert Path(sys.modules["training"].__file__) == folder / "training/__init__.py"
    assert guide.Autoencoder.__module__ == "training.model"
    assert guide.OwnModel is OwnModel


@pytest.mark.parametrize(
    ("name", "graphs"), [("from_onnx", {"encoder", "decoder"}), ("hidden_layer", {"encoder", "head"})]
)
def test_the_other_recipes_are_recipes(guide, tmp_path, name, graphs):
    recipe = find_recipe(f"{guide.__file__}:{name}")()
    assert set(recipe.model.networks()) == graphs
    run = Run(tmp_path, seed=0, checkpoint_every=1, console=Console(quiet=True))
    assert score_concepts(recipe.model, recipe.pairs, run).reference["digit"] > 0.2


def test_the_measure_gives_a_figure(guide):
    recipe = guide.with_measure()
    flow = interpretation_flow((12,), blocks=1, hidden=8, depth=1, seed=0)
    little = FactorLayout.from_sizes({"digit": 1, "residual": 11})
    everything = FactorLayout.from_sizes({"digit": 11, "residual": 1})
    least, most = (recipe.measure(recipe.model, flow, layout)["swapped_digit"].value for layout in (little, everything))
    assert 0 <= least < most <= 1


@pytest.fixture(scope="module")
def tables(folder):
    """The guide's two tables, with more rows of the same kind for every picture."""
    attributes, pairs = (block for kind, block in BLOCKS if kind == "csv")
    train = folder / "pictures/train"
    files = [file.relative_to(train).as_posix() for file in sorted(train.rglob("*.png"))]
    for named in [row[0] for row in csv.reader(attributes.splitlines()[1:])]:
        assert named in files
        files.remove(named)
    rows = [f"{name},{name[0]},{np.asarray(Image.open(train / name)).mean() / 255:.4f}" for name in files]
    (folder / "attributes.csv").write_text(attributes + "\n".join(rows))
    more = [
        f"{a},{b},{shared}," for shared in ("digit", "!digit") for a, b in itertools.pairwise(files[: MIN_PAIRS + 1])
    ]
    (folder / "pairs.csv").write_text(pairs + "\n".join(more))


CONCEPTS = {
    "SameLabel": ("digit",),
    "SameAttribute": ("digit", "thickness"),
    "ListedPairs": ("digit",),
    "GenerativeFactors": ("width", "light"),
    "EverythingBut": ("light",),
    "Sharing": ("width", "light"),
    "Sketches": ("light",),
    "Unrelated": (),
    "Mixed": ("digit",),
}


@pytest.fixture(scope="module")
def names(guide, tables):
    """What the lines of the table may use."""
    names = dict(vars(guide))
    exec("from iin_training.pairs import *", names)
    names["images"] = guide.pictures("pictures/train")
    names["rendered"] = eval(code_of("GenerativeFactors"), names)
    return names


def code_of(source):
    (code,) = [row[2].strip("`") for row in SOURCES if row[2].startswith(f"`{source}(")]
    return code


def test_the_table_has_every_source_of_pairs():
    assert [row[2].strip("`").split("(")[0] for row in SOURCES] == list(CONCEPTS)


@pytest.mark.parametrize("source", CONCEPTS)
def test_a_source_of_pairs_is_made_by_its_line(names, source):
    if source == "Sketches":  # a few pictures will do
        names = names | {"images": ImageArray(load_digits(None, held_out=500, seed=0).images[:40], value_range=(0, 1))}
    pairs = eval(practised_little(code_of(source)), names)
    assert pairs.concepts == CONCEPTS[source]
    batch = pairs.draw(16, ("residual", *pairs.concepts), torch.Generator().manual_seed(0))
    assert batch.images_a.shape == batch.images_b.shape == (16, 1, 28, 28)
    assert 0 <= batch.images_a.min() < batch.images_a.max() <= 1
    assert bool(batch.shared.any()) == (source != "Unrelated")


def images(count=60, *, value_range=(0.0, 1.0), size=28):
    levels = np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8)
    return ImageArray(levels, value_range=value_range)


def pairs(concept="digit", **changed):
    return SameLabel(images(**changed), np.arange(60) % 3, concept)


class Refused:
    """What provokes each message that the guide lists, in `provoke`; `folder` is the user's repository."""

    def __init__(self, guide, folder, run_dir):
        self.guide, self.folder, self.run_dir = guide, folder, run_dir

    def run(self, *, encoder=None, decoder=None, run_dir=None, **changed):
        encoder = encoder or nn.Sequential(nn.Flatten(), nn.Linear(784, 6))
        model = FrozenModel(encoder, decoder=decoder, **self.guide.SEEN)
        recipe = OwnModel(**{"name": "refused", "model": model, "pairs": pairs(), "held_out": pairs()} | changed)
        run_recipe(recipe, run_dir or self.run_dir, Console(quiet=True))

    def a_function(self):
        find_recipe(f"{self.folder / 'mine.py'}:nothing")

    def the_range(self):
        self.run(pairs=pairs(value_range=(-1.0, 1.0)))

    def the_shape(self):
        self.run(pairs=pairs(size=32))

    def a_single_picture(self):
        SameLabel(images(5), [0, 0, 1, 1, 2], "digit")

    def other_concepts(self):
        self.run(held_out=Unrelated(images()))

    @torch.no_grad()
    def constant_latents(self):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 6), nn.ReLU())
        encoder[1].bias.copy_(torch.tensor([100.0] * 2 + [-1e3] * 4))  # two units always on, four never
        self.run(encoder=encoder)

    def random_latents(self):
        self.run(encoder=Forward(lambda images: functional.dropout(images.flatten(1)[:, 300:310])))

    def outside_the_range(self):
        self.run(decoder=Forward(lambda latents: 9 + 0 * latents.sum(1)[:, None, None, None].expand(-1, 1, 28, 28)))

    def no_export(self):
        self.run(
            encoder=Forward(lambda images: images.flatten(1)[:, 300:310] * (2 if images.sum().item() > 1e9 else 1))
        )

    def a_cut_through_a_block(self):
        cut(Residual(), "inner", image_shape=(1, 28, 28))

    def no_dimension(self):
        transform = self.guide.my_recipe().transform
        self.run(transform=replace(transform, size_estimator="paper"))

    def other_settings(self):
        recipe, directory = self.guide.my_recipe(), self.folder / "build/mine"
        run = Run(directory, seed=recipe.seed, checkpoint_every=1, console=Console(quiet=True))
        transform = replace(recipe.transform, blocks=1, hidden=32, depth=1)
        train_transform(transform, recipe.model, {"residual": 8, "digit": 4}, recipe.pairs, run)


class Forward(nn.Module):
    def __init__(self, forward_of):
        super().__init__()
        self.forward_of = forward_of

    def forward(self, items):
        return self.forward_of(items)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(784, 784), nn.Linear(784, 3)

    def forward(self, images):
        flat = images.flatten(1)
        return self.last(flat + self.inner(flat))


PROVOKED = dict(
    zip(
        [row[0].strip("`") for row in REFUSED],
        [name for name in vars(Refused) if name not in ("run", "__init__") and not name.startswith("__")],
        strict=True,
    )
)


@pytest.mark.parametrize("said", PROVOKED)
def test_what_is_refused_is_refused_in_these_words(guide, folder, finished, tmp_path, said):
    with pytest.raises((ValueError, RuntimeError), match=re.escape(said)):
        getattr(Refused(guide, folder, tmp_path), PROVOKED[said])()
