"""What is refused of a user's model and pairs before anything is trained, and what is not."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from iin_training.data.augmentation import STILL, Augmentation
from iin_training.data.images import ImageArray, ImageFiles
from iin_training.own_model import OwnModel
from iin_training.pairs import (
    GenerativeFactors,
    ListedPairs,
    Mixed,
    SameAttribute,
    SameLabel,
    Unrelated,
    Variants,
    read_attributes,
)
from iin_training.pipeline import _prepared
from iin_training.run import Run
from iin_training.stages import latents
from PIL import Image
from rich.console import Console

from .conftest import BRIEF, SHAPE, Pictures, digits_again, opened, quiet

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"checkpoint_every": 0}, r"checkpoint_every: expected at least 1 step, got 0"),
        ({"seed": -1}, r"seed: expected at least 0, got -1"),
        ({"seed": 1.5}, r"seed: expected a whole number, got 1\.5"),
        ({"version": 2}, r"version: expected text, got 2"),
        ({"precision": "float16"}, r"precision: expected one of float32, int8, got 'float16'"),
        ({"transform": None}, r"transform: expected Transform, got None"),
        ({"name": ""}, r"name: expected letters"),
        ({"name": "../elsewhere"}, r"name: expected letters"),
        ({"name": ".."}, r"name: expected letters"),
        ({"measure": {}}, r"measure: expected a function of model, .* got dict; give the function itself"),
    ],
    ids=str,
)
def test_what_no_run_can_do_is_refused_at_once(recipe, changed, words):
    with pytest.raises(ValueError, match=words):
        replace(recipe, **changed)


@pytest.mark.parametrize("field", ["pairs", "held_out"])
def test_what_is_no_source_of_pairs_is_refused_at_once(recipe, pictures, field):
    for given in (pictures[0].images, [(recipe.pairs, 1.0)]):
        with pytest.raises(ValueError, match=rf"^{field}: expected a source of pairs, .* got (ImageArray|list)"):
            replace(recipe, **{field: given})


@pytest.mark.parametrize("concepts", [("digit",), ("light",)], ids=str)
def test_held_out_pairs_of_other_concepts_are_refused(recipe, pictures, concepts):
    with pytest.raises(ValueError, match=rf"held_out: expected .* \(digit, light\), got {', '.join(concepts)}"):
        replace(recipe, held_out=pictures[1].pairs(*concepts))
    with pytest.raises(ValueError, match=r"held_out: expected .* got none"):
        replace(recipe, held_out=Unrelated(pictures[1].images))


def test_a_bare_network_is_no_model(recipe, networks):
    with pytest.raises(ValueError, match=r"model: expected a FrozenModel, got Classifier; give FrozenModel\(encoder"):
        replace(recipe, model=networks["digit"])


def test_the_order_of_the_concepts_does_not_matter(recipe, pictures):
    assert replace(recipe, held_out=pictures[1].pairs("light", "digit")).held_out.concepts == ("light", "digit")


@pytest.mark.parametrize("field", ["pairs", "held_out"])
@pytest.mark.parametrize(
    ("size", "value_range", "words"),
    [
        (20, (0.0, 1.0), r"expected float32 images of \(1, 28, 28\), .* got torch.float32 of \(1, 20, 20\)"),
        (
            28,
            (-1.0, 1.0),
            r"expected values in \[0, 1\], the model's value_range, got (-1 to 1|images made for \[-1, 1\])",
        ),
        (28, (0.5, 1.0), r"expected values in \[0, 1\], the model's value_range, got images made for \[0.5, 1\]"),
    ],
    ids=["size", "range", "range within the model's"],
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
        subject = prepared(replace(recipe, pairs=Altered(recipe.pairs, told(similarity))), tmp_path)
        assert subject.pairs.concepts == ("digit", "light")


def prepared(recipe, directory, console=None):
    run = Run(directory, seed=0, checkpoint_every=1, console=console or Console(quiet=True))
    return _prepared(recipe, run)[0]


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
    assert (
        f"warning: 2 of 22 different pictures of held_out are in pairs too, such as {paths[38]} (there {paths[38]});"
        in said.getvalue()
    )


def test_copies_on_both_sides_are_told_of_wherever_they_lie(networks, tmp_path):
    paths = [tmp_path / f"{number:02}.png" for number in range(60)]
    for number, path in enumerate(paths):
        Image.new("L", (28, 28), 17 if number == 50 else number).save(path)
    how = {"size": (28, 28), "channels": 1, "value_range": (0.0, 1.0), "console": Console(quiet=True)}
    images = ImageFiles(paths, **how)
    levels = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    levels[50] = levels[17]
    array = ImageArray(levels, value_range=(0.0, 1.0))
    for seen, held_out, told in (
        (images, images, f"1 of 20 different pictures of held_out are in pairs too, such as {paths[50]}"),
        (ImageFiles(paths[:40], **how), ImageFiles(paths, **how), f"{paths[50]} (there {paths[17]})"),
        (array, array, "1 of 20 different pictures of held_out are in pairs too, such as number 50 (there number 17)"),
    ):
        said = io.StringIO()
        by_number = by_light(seen, lambda number: number < 40), by_light(held_out, lambda number: number >= 40)
        prepared(of_labels(networks, *by_number), tmp_path / "run", Console(file=said, width=1000))
        assert told in said.getvalue()


class Twice(ImageArray):
    """Every picture, then all again in another light: what is in the array says nothing of these."""

    def __len__(self):
        return 2 * super().__len__()

    def load(self, indices, generator):
        count = super().__len__()
        return super().load(indices % count, generator) * torch.where(indices < count, 1.0, 0.5)[:, None, None, None]


def test_a_set_that_makes_pictures_of_an_array_is_none_of_copies(networks, tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    images, said = Twice(levels, value_range=(0.0, 1.0)), io.StringIO()
    by_number = by_light(images, lambda number: number < 60), by_light(images, lambda number: number >= 60)
    prepared(of_labels(networks, *by_number), tmp_path, Console(file=said, width=1000))
    assert "pictures of held_out are in pairs too" not in said.getvalue()


class Halved(ImageArray):
    """Every picture at half its light, which leaves those apart that were, and says so."""

    @property
    def contents(self):
        return super().contents

    def load(self, indices, generator):
        return super().load(indices, generator) / 2


def test_a_set_that_alters_pictures_and_says_what_is_in_each_is_looked_at_for_copies(networks, tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    levels[50] = levels[17]
    images, said = Halved(levels, value_range=(0.0, 1.0)), io.StringIO()
    by_number = by_light(images, lambda number: number < 40), by_light(images, lambda number: number >= 40)
    prepared(of_labels(networks, *by_number), tmp_path, Console(file=said, width=1000))
    assert "1 of 20 different pictures of held_out are in pairs too, such as number 50" in said.getvalue()


@pytest.mark.parametrize("nested", [False, True], ids=["mixed", "mixed twice"])
@pytest.mark.parametrize("seen_first", [False, True], ids=["last", "first"])
def test_pictures_behind_a_source_that_cannot_say_its_own_are_found(recipe, pictures, tmp_path, seen_first, nested):
    sources = [(Altered(recipe.held_out, lambda batch: batch), 1.0), (Unrelated(pictures[0].images), 1.0)]
    held_out = Mixed(sources[::-1] if seen_first else sources)
    if nested:
        held_out = Mixed([(Altered(recipe.held_out, lambda batch: batch), 1.0), (held_out, 1.0)])
    with pytest.raises(ValueError, match=r"^held_out: expected pairs .* got \d+ pictures that pairs"):
        prepared(replace(recipe, held_out=held_out), tmp_path)


def by_light(images, kept):
    """Pairs of the kept ones among 60 images, by three labels; the others have none."""
    return SameLabel(images, [number % 3 if kept(number) else None for number in range(len(images))], "light")


def of_labels(networks, seen, held_out):
    return OwnModel(name="labels", model=opened(networks["digit"]), pairs=seen, held_out=held_out, transform=BRIEF)


def test_one_set_of_pictures_may_be_divided_by_labels(networks, tmp_path):
    images = ImageArray(np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8), value_range=(0, 1))
    seen, held_out = by_light(images, lambda number: number < 40), by_light(images, lambda number: number >= 40)
    assert prepared(of_labels(networks, seen, held_out), tmp_path).held_out is held_out
    for other, count in ((by_light(images, lambda number: number >= 33), 7), (Unrelated(images), 40)):
        mixed = Mixed([(held_out, 1.0), (other, 1.0)])
        with pytest.raises(ValueError, match=rf"^held_out: .* got {count} pictures that pairs draws too"):
            prepared(of_labels(networks, seen, mixed), tmp_path)


def test_one_picture_of_a_class_that_is_mostly_passed_over_is_found(networks, tmp_path):
    """Balanced, a class of many pictures is drawn as seldom as one of 150 that have two."""
    levels = np.random.default_rng(0).integers(0, 256, (2000, 28, 28), dtype=np.uint8)
    images, numbers = ImageArray(levels, value_range=(0, 1)), range(2000)
    classes = [0 if number < 1500 else number // 2 if number < 1800 else None for number in numbers]
    others = [number % 4 if number in (0, *range(1800, 2000)) else None for number in numbers]
    seen, held_out = SameLabel(images, classes, "light"), SameLabel(images, others, "light")
    with pytest.raises(ValueError, match=r"^held_out: .* got 1 pictures that pairs draws too"):
        prepared(of_labels(networks, seen, held_out), tmp_path)


def every_source(images, folder):
    """Sources of ours of the first 40 of 60 images."""
    kept = [number % 4 if number < 40 else None for number in range(60)]
    (folder / "table.csv").write_text("\n".join(["file,light", *(f"{number},{number % 4}" for number in range(40))]))
    lines = ["image_a,image_b,shared", *(f"{number},{number + 1},light" for number in range(0, 40, 2))]
    (folder / "pairs.csv").write_text("\n".join(lines))
    attributes = read_attributes(folder / "table.csv")
    return {
        "labels": SameLabel(images, kept, "light"),
        "variants": Variants(images, kept, "light"),
        "attributes": SameAttribute(images, attributes, console=Console(quiet=True)),
        "list": ListedPairs(images, folder / "pairs.csv"),
    }


@pytest.mark.parametrize("kind", ["labels", "variants", "attributes", "list"])
def test_our_sources_say_what_they_can_draw(tmp_path, kind):
    images = ImageArray(np.zeros((60, 8, 8), np.uint8))
    source = every_source(images, tmp_path)[kind]
    drawn = source.over(Numbers(images).of).draw(2000, ("residual", "light"), torch.Generator().manual_seed(0))
    ((of, numbers),) = Mixed([(source, 1.0)]).drawable()
    assert of is images
    assert sorted(numbers.tolist()) == torch.cat([drawn.images_a, drawn.images_b]).flatten().unique().tolist()
    assert sorted(numbers.tolist()) == list(range(40))


class Numbers:
    """Images that are their numbers."""

    def __init__(self, images):
        self.images = images

    def of(self, images):
        return self

    def __len__(self):
        return len(self.images)

    def load(self, indices, generator):
        return indices[:, None]

    def name(self, index):
        return self.images.name(index)


def test_one_folder_may_be_divided_by_labels(networks, tmp_path):
    paths = [tmp_path / f"{number:02}.png" for number in range(60)]
    for number, path in enumerate(paths):
        Image.new("L", (28, 28), number).save(path)
    how = {"size": (28, 28), "channels": 1, "value_range": (0.0, 1.0), "console": Console(quiet=True)}
    said = io.StringIO()
    for augmentation in (STILL, Augmentation()):
        seen = by_light(ImageFiles(paths, augmentation=augmentation, **how), lambda number: number < 40)
        held_out = by_light(ImageFiles(paths[30:] + paths[:30], **how), lambda number: 10 <= number < 30)
        prepared(of_labels(networks, seen, held_out), tmp_path / "run", Console(file=said, width=1000))
    assert not said.getvalue()


def test_held_out_pairs_are_checked_before_any_others_are_drawn(recipe, tmp_path):
    asked = []
    pairs = Altered(recipe.pairs, lambda batch: asked.append(len(batch)) or batch)
    broken = Altered(recipe.held_out, lambda batch: replace(batch, images_b=batch.images_b * 255))
    with pytest.raises(ValueError, match=r"^held_out: expected values"):
        prepared(replace(recipe, pairs=pairs, held_out=broken), tmp_path)
    assert not asked


def test_large_pictures_are_tried_a_few_at_a_time(recipe, tmp_path, monkeypatch):
    asked = []
    pairs = Altered(recipe.pairs, lambda batch: asked.append(len(batch)) or batch)
    prepared(replace(recipe, pairs=pairs), tmp_path)
    assert asked == [64, 512]  # the first for the digest, since this source has none
    asked.clear()
    monkeypatch.setattr(latents, "USUAL", 28 * 28 // 8)
    prepared(replace(recipe, pairs=pairs), tmp_path)
    assert (max(asked), sum(asked)) == (64, 64 + 512)


def test_rendered_pairs_are_held_out_from_themselves(networks, tmp_path):
    def rendered():
        return GenerativeFactors(
            lambda values, generator: values["digit"][:, None, None, None].expand(-1, *SHAPE).contiguous(),
            {"digit": lambda count, generator: torch.rand(count, generator=generator)},
        )

    model = opened(networks["digit"])
    recipe = OwnModel(name="rendered", model=model, pairs=rendered(), held_out=rendered(), transform=BRIEF)
    assert prepared(recipe, tmp_path).held_out is recipe.held_out


def test_examples_are_drawn_of_a_mixture_with_a_rare_source(recipe, pictures, tmp_path):
    """64 examples are too few for one of 200, which a batch of 1024 would not be."""
    held_out = Mixed([(pictures[1].pairs("digit", "light"), 200.0), (Unrelated(pictures[1].images), 1.0)])
    assert len(prepared(replace(recipe, held_out=held_out), tmp_path).examples) == 64
