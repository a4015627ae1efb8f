"""A frozen model of the user's own, from the function in their file to the bundle."""

import io
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from iin_bundle import Figure, read_bundle
from iin_training.config import Optimiser, Transform
from iin_training.data.colour import STILL, Augmentation
from iin_training.data.digits import load_digits
from iin_training.data.images import ImageArray, ImageFiles
from iin_training.models.cut import cut
from iin_training.models.frozen import FrozenModel
from iin_training.own_model import OwnModel
from iin_training.pairs import GenerativeFactors, Mixed, SameLabel, Unrelated
from iin_training.pipeline import run_recipe, score_recipe
from iin_training.run import Run
from PIL import Image
from rich.console import Console
from torch import nn
from torch.nn import functional

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
SHAPE = (1, 28, 28)
LIGHTS = (0.25, 0.5, 1.0)
BRIEF = Transform(
    blocks=1,
    hidden=32,
    depth=1,
    optimiser=Optimiser(steps=30, batch_size=48, learning_rate=1e-3, schedule="linear_end"),
)


class Pictures:
    """Real digits, each drawn in one of three lights: two concepts that have nothing to do with each other."""

    def __init__(self, images, labels, seed):
        light = np.random.default_rng(seed).integers(len(LIGHTS), size=len(images))
        levels = (images * np.array(LIGHTS)[light, None, None]).round().astype(np.uint8)
        self.images = ImageArray(levels, value_range=(0.0, 1.0))
        self.labels = {"digit": labels, "light": light}

    def pairs(self, *concepts):
        return Mixed([(SameLabel(self.images, self.labels[name], name), 1.0) for name in concepts])

    def everything(self):
        every = torch.arange(len(self.images))
        return self.images.load(every, None), {name: torch.from_numpy(of) for name, of in self.labels.items()}


class Classifier(nn.Module):
    """Layers of the user's, with the last but one to look into."""

    def __init__(self, classes):
        super().__init__()
        self.first, self.hidden, self.last = nn.Linear(784, 32), nn.Linear(32, 8), nn.Linear(8, classes)

    def forward(self, images):
        return self.last(self.hidden(self.first(images.flatten(1)).relu()).relu())


def trained(pictures, concept):
    """A classifier that was taught one concept and nothing else."""
    images, labels = pictures.everything()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Classifier(int(labels[concept].max()) + 1)
    optimiser, generator = torch.optim.Adam(network.parameters(), lr=3e-3), torch.Generator().manual_seed(0)
    for _ in range(300):
        rows = torch.randint(len(images), (64,), generator=generator)
        loss = functional.cross_entropy(network(images[rows]), labels[concept][rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


def opened(network):
    """The classifier cut at its hidden layer."""
    encoder, head = cut(network, "hidden", image_shape=SHAPE)
    return FrozenModel(encoder, head=head, image_shape=SHAPE, value_range=(0.0, 1.0))


@pytest.fixture(scope="module")
def pictures():
    data = load_digits(None, held_out=500, seed=0)
    return Pictures(data.images[::2], data.labels[::2], 1), Pictures(data.held_out_images, data.held_out_labels, 2)


@pytest.fixture(scope="module")
def networks(pictures):
    return {concept: trained(pictures[0], concept) for concept in ("digit", "light")}


@pytest.fixture(scope="module")
def recipe(pictures, networks):
    seen, held_out = (part.pairs("digit", "light") for part in pictures)
    return OwnModel(name="hidden", model=opened(networks["digit"]), pairs=seen, held_out=held_out, transform=BRIEF)


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """The directory of a whole run."""
    return run_recipe(recipe, tmp_path_factory.mktemp("own") / "run", Console(quiet=True)).directory.parent


def quiet(recipe, directory):
    return run_recipe(recipe, directory, Console(quiet=True))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"checkpoint_every": 0}, r"checkpoint_every: expected at least 1 step, got 0"),
        ({"name": ""}, r"name: expected letters"),
        ({"name": "../elsewhere"}, r"name: expected letters"),
        ({"name": ".."}, r"name: expected letters"),
    ],
    ids=str,
)
def test_what_no_run_can_do_is_refused_at_once(recipe, changed, words):
    with pytest.raises(ValueError, match=words):
        replace(recipe, **changed)


@pytest.mark.parametrize("concepts", [("digit",), ("light",)], ids=str)
def test_held_out_pairs_of_other_concepts_are_refused(recipe, pictures, concepts):
    with pytest.raises(ValueError, match=rf"held_out: expected .* \(digit, light\), got {', '.join(concepts)}"):
        replace(recipe, held_out=pictures[1].pairs(*concepts))
    with pytest.raises(ValueError, match=r"held_out: expected .* got none"):
        replace(recipe, held_out=Unrelated(pictures[1].images))


def test_the_order_of_the_concepts_does_not_matter(recipe, pictures):
    assert replace(recipe, held_out=pictures[1].pairs("light", "digit")).held_out.concepts == ("light", "digit")


@pytest.mark.parametrize("field", ["pairs", "held_out"])
@pytest.mark.parametrize(
    ("size", "value_range", "words"),
    [
        (20, (0.0, 1.0), r"expected float32 images of \(1, 28, 28\), .* got torch.float32 of \(1, 20, 20\)"),
        (28, (-1.0, 1.0), r"expected values in \[0, 1\], the model's value_range, got -1 to 1"),
    ],
    ids=["size", "range"],
)
def test_pictures_that_the_model_was_not_made_for_are_refused(recipe, tmp_path, field, size, value_range, words):
    levels = np.random.default_rng(0).integers(0, 256, (60, size, size), dtype=np.uint8)
    images = ImageArray(levels, value_range=value_range)
    other = Mixed([(SameLabel(images, np.arange(60) % 3, name), 1.0) for name in ("digit", "light")])
    with pytest.raises(ValueError, match=rf"^{field}: {words}"):
        quiet(replace(recipe, **{field: other}), tmp_path)


class Altered:
    """A source of the user's whose batches are not what they should be."""

    def __init__(self, pairs, alter):
        self.concepts, self._pairs, self._alter = pairs.concepts, pairs, alter

    def draw(self, count, factors, generator):
        return self._alter(self._pairs.draw(count, factors, generator))


def told(similarity):
    return lambda batch: replace(batch, similarity=torch.full((len(batch),), similarity, dtype=torch.float64))


BROKEN = {
    "numbers for masks": (
        lambda batch: replace(batch, shared=batch.shared.long()),
        r"expected shared to be torch.bool of \(\d+, 3\), .* residual, digit, light, got torch.int64",
    ),
    "a column too few": (lambda batch: replace(batch, shared=batch.shared[:, 1:]), r"expected shared .* of \(\d+, 2\)"),
    "fewer pairs": (
        lambda batch: replace(batch, images_a=batch.images_a[1:], images_b=batch.images_b[1:]),
        "expected images_a and images_b of one dtype and one shape",
    ),
    "fewer partners": (lambda batch: replace(batch, images_b=batch.images_b[1:]), "expected images_a and images_b"),
    "partners in another range": (
        lambda batch: replace(batch, images_b=batch.images_b * 255),
        r"expected values in \[0, 1\], .* to 255",
    ),
    "bytes": (
        lambda batch: replace(batch, images_a=batch.images_a.byte(), images_b=batch.images_b.byte()),
        "expected float32 images",
    ),
    "wholly alike": (told(1.0), r"expected similarity .* in \[0, 1\) as float32, got 1 among them"),
    "wholly alike in 32 bits": (told(1 - 1e-9), "expected similarity .* got 1 among them"),
    "opposite": (told(-0.5), "expected similarity .* got -0.5 among them"),
    "one similarity for all": (
        lambda batch: replace(batch, similarity=torch.tensor(0.5)),
        r"expected similarity to be None or \(\d+,\) numbers .* got numbers of \(\)",
    ),
}


@pytest.mark.parametrize("field", ["pairs", "held_out"])
@pytest.mark.parametrize(("alter", "words"), BROKEN.values(), ids=BROKEN)
def test_batches_of_the_users_own_source_are_checked_before_training(recipe, tmp_path, field, alter, words):
    other = Altered(getattr(recipe, field), alter)
    with pytest.raises(ValueError, match=rf"^{field}: {words}"):
        prepared(replace(recipe, **{field: other}), tmp_path)


def test_batches_that_say_how_alike_pairs_are_pass(recipe, tmp_path):
    for similarity in (0.0, 0.999, math.nan):
        prepared(replace(recipe, pairs=Altered(recipe.pairs, told(similarity))), tmp_path)


def prepared(recipe, directory, console=None):
    return recipe.prepare(Run(directory, seed=0, checkpoint_every=1, console=console or Console(quiet=True)))


@pytest.mark.parametrize("augmentation", [STILL, Augmentation()], ids=["as they are", "distorted"])
def test_held_out_pictures_that_t_is_trained_on_are_refused(recipe, pictures, tmp_path, augmentation):
    seen = Pictures(*digits_again(), 1)
    seen.images.augmentation = augmentation
    with pytest.raises(ValueError, match=r"^held_out: expected pairs .* not trained on, got \d+ pictures that pairs"):
        prepared(
            replace(recipe, pairs=seen.pairs("digit", "light"), held_out=pictures[0].pairs("digit", "light")), tmp_path
        )


def of_files(networks, *parts, augmentation):
    """A recipe of unrelated pictures from files, those of training distorted."""
    how = {"size": (28, 28), "channels": 1, "value_range": (0.0, 1.0), "console": Console(quiet=True)}
    seen, held_out = (
        Unrelated(ImageFiles(part, augmentation=distorted, **how))
        for part, distorted in zip(parts, (augmentation, STILL), strict=True)
    )
    return OwnModel(name="files", model=opened(networks["digit"]), pairs=seen, held_out=held_out, transform=BRIEF)


@pytest.mark.parametrize("augmentation", [STILL, Augmentation()], ids=["as they are", "distorted"])
def test_files_in_both_sources_are_refused_where_all_are_and_else_warned_of(networks, tmp_path, augmentation):
    paths = [tmp_path / f"{number:02}.png" for number in range(60)]
    for number, path in enumerate(paths):
        Image.new("L", (28, 28), number).save(path)
    with pytest.raises(ValueError, match=r"^held_out: expected pairs .* not trained on, got 60 pictures"):
        prepared(of_files(networks, paths, paths, augmentation=augmentation), tmp_path / "run")
    said = io.StringIO()
    recipe = of_files(networks, paths[:40], paths[38:], augmentation=augmentation)
    prepared(recipe, tmp_path / "run", Console(file=said, width=1000))
    assert f"warning: held_out has 2 of the files of pairs, such as {paths[38]};" in said.getvalue()


def test_rendered_pairs_are_held_out_from_themselves(networks, tmp_path):
    def rendered():
        return GenerativeFactors(
            lambda values, generator: values["digit"][:, None, None, None].expand(-1, *SHAPE).contiguous(),
            {"digit": lambda count, generator: torch.rand(count, generator=generator)},
        )

    model = opened(networks["digit"])
    prepared(OwnModel(name="rendered", model=model, pairs=rendered(), held_out=rendered(), transform=BRIEF), tmp_path)


def test_examples_are_drawn_of_a_mixture_with_a_rare_source(recipe, pictures, tmp_path):
    """64 examples are too few for one of 200, which a batch of 1024 would not be."""
    held_out = Mixed([(pictures[1].pairs("digit", "light"), 200.0), (Unrelated(pictures[1].images), 1.0)])
    assert len(prepared(replace(recipe, held_out=held_out), tmp_path).examples) == 64


def test_a_model_scores_higher_on_what_it_was_taught(recipe, networks, tmp_path):
    found = {
        concept: score_recipe(replace(recipe, model=opened(network)), tmp_path / concept, Console(quiet=True)).reference
        for concept, network in networks.items()
    }
    assert found["digit"]["digit"] > found["light"]["digit"] + 0.2
    assert found["light"]["light"] > found["digit"]["light"] + 0.2
    assert not (tmp_path / "digit/checkpoints").exists()  # nothing was trained


def test_a_classifier_cut_in_two_becomes_a_bundle_without_decoder(recipe, finished, networks, pictures):
    bundle = read_bundle(finished / "bundle")
    assert set(bundle.manifest.graphs) == {"encoder", "transform", "inverse", "head"}
    assert bundle.manifest.layout.names == ("residual", "digit", "light")
    assert sum(part.size for part in bundle.manifest.layout) == bundle.manifest.size == 8
    assert (bundle.manifest.name, bundle.manifest.version) == ("hidden", "1")
    given, names = pictures[1].images.load(torch.arange(5), None), {"encoder": "image", "transform": "latent"}
    values = given.numpy()
    for role, name in (names | {"inverse": "factors", "head": "latent"}).items():
        session = onnxruntime.InferenceSession(bundle.graph_path(role), providers=["CPUExecutionProvider"])
        values = session.run(None, {name: values})[0]
    expected = torch.softmax(networks["digit"](given), dim=1).detach().numpy()
    np.testing.assert_allclose(values, expected, atol=1e-3)
    assert len(list((finished / "bundle/samples").iterdir())) == 12


def test_everything_is_measured_that_needs_no_decoder(finished):
    figures = read_bundle(finished / "bundle").manifest.evaluation
    responses = {"residual_response", "digit_response", "light_response"}
    assert set(figures) == {"held_out_log_likelihood", "digit_shared", "light_shared"} | responses
    assert math.isfinite(figures["held_out_log_likelihood"].value)
    for name in ("digit_shared", "light_shared"):
        assert min(figures[name].floor, figures[name].value) >= -1
        assert max(figures[name].floor, figures[name].value) <= 1
    assert figures["digit_shared"].value > figures["digit_shared"].floor + 0.2
    for name in responses:
        assert 0 <= figures[name].value <= 1
        assert 0.5 < figures[name].ceiling <= 1  # ten digits
        assert figures[name].meaning in (finished / "bundle/MODEL_CARD.md").read_text()


def test_a_finished_run_is_reused(recipe, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    said = io.StringIO()
    bundle = run_recipe(recipe, finished, Console(file=said, width=1000))
    assert "made before with the same settings and data, reused" in said.getvalue()
    assert bundle.manifest == read_bundle(finished / "bundle").manifest
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


@pytest.mark.parametrize("other", ["model", "pairs"])
def test_another_model_or_other_pairs_are_refused_in_a_run_directory(recipe, finished, networks, tmp_path, other):
    directory = shutil.copytree(finished, tmp_path / "run")
    changed = {
        "model": {"model": opened(networks["light"]), "transform": by_hand()},
        "pairs": {"pairs": Pictures(*digits_again(), 3).pairs("digit", "light"), "transform": by_hand()},
    }[other]
    with pytest.raises(
        ValueError, match=rf"made with other settings .*\b{other}: [0-9a-f]{{64}} then, [0-9a-f]{{64}} now"
    ):
        quiet(replace(recipe, **changed), directory)
    assert read_bundle(directory / "bundle").manifest == read_bundle(finished / "bundle").manifest


def by_hand():
    return replace(BRIEF, sizes={"digit": 2, "light": 2})


def digits_again():
    data = load_digits(None, held_out=500, seed=0)
    return data.images[::2], data.labels[::2]


class Interrupted(Exception):
    """Stands for Ctrl-C, a full disk or a power cut."""


class Stopping:
    """The same pairs, until so many batches of training are drawn."""

    def __init__(self, pairs, batches):
        self.concepts, self._pairs, self._left = pairs.concepts, pairs, batches

    def draw(self, count, factors, generator):
        if count == BRIEF.optimiser.batch_size:
            self._left -= 1
            if self._left < 0:
                raise Interrupted
        return self._pairs.draw(count, factors, generator)

    def digest(self):
        return self._pairs.digest()


def test_an_interrupted_run_ends_like_one_that_was_not(recipe, finished, tmp_path):
    often = replace(recipe, checkpoint_every=10)
    with pytest.raises(Interrupted):
        quiet(replace(often, pairs=Stopping(recipe.pairs, 17)), tmp_path)
    assert json.loads((tmp_path / "checkpoints/transform/checkpoint.json").read_text())["step"] == 10
    assert not (tmp_path / "bundle").exists()
    # What is measured, and what the bundle is called, may change meanwhile: T does not depend on it.
    resumed = quiet(replace(often, version="2", measure=dimensions), tmp_path).manifest
    whole = read_bundle(finished / "bundle").manifest
    assert resumed.evaluation == whole.evaluation | {"dimensions": Figure(value=8.0, meaning="of the layout")}
    assert (resumed.version, resumed.layout) == ("2", whole.layout)
    for role in ("transform", "inverse"):
        assert resumed.graphs[role].file.sha256 == whole.graphs[role].file.sha256


def dimensions(model, transform, layout):
    return {"dimensions": Figure(value=float(layout.size), meaning="of the layout")}


def test_another_measure_is_another_run(recipe):
    measured = replace(recipe, measure=dimensions)
    assert measured.identity() != recipe.identity()
    assert measured.identity() != replace(recipe, measure=lambda *_: {}).identity()
    assert measured.identity() == replace(recipe, measure=dimensions).identity()


def test_a_model_of_the_users_is_interpreted_without_any_concept(pictures, networks, tmp_path):
    """The unsupervised loss, on an encoder that samples."""
    seen, held_out = (Unrelated(part.images) for part in pictures)
    model = FrozenModel(Sampling(opened(networks["digit"]).encoder), image_shape=SHAPE, value_range=(0.0, 1.0))
    recipe = OwnModel(name="alone", model=model, pairs=seen, held_out=held_out, transform=BRIEF)
    assert score_recipe(recipe, tmp_path, Console(quiet=True)).reference == {"residual": 1.0}
    manifest = quiet(recipe, tmp_path).manifest
    assert [(part.name, part.start, part.size) for part in manifest.layout] == [("residual", 0, 8)]
    assert set(manifest.graphs) == {"encoder", "transform", "inverse"}
    assert set(manifest.evaluation) == {"held_out_log_likelihood"}


class Sampling(nn.Module):
    """A distribution around the latents of another encoder."""

    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def forward(self, images):
        mean = self.mean(images)
        return mean, torch.full_like(mean, -4.0)
