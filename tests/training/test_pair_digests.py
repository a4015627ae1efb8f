"""A source of pairs is known again by its digest, and any change that alters its pairs alters that."""

import json
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from iin_training.data.augmentation import STILL, Augmentation
from iin_training.data.coloured_digits import ColouredDigits
from iin_training.data.digests import digest_of
from iin_training.data.images import ImageArray, ImageFiles, image_folder
from iin_training.pairs import (
    EverythingBut,
    GenerativeFactors,
    ListedPairs,
    Mixed,
    PairBatch,
    SameAttribute,
    SameLabel,
    Sharing,
    Unrelated,
    Variants,
    read_attributes,
)
from iin_training.pairs.base import fingerprint
from iin_training.pairs.digits import DigitPairs
from PIL import Image
from rich.console import Console

IMAGES = 300  # far more than a few drawn pairs show


def noise(*, alter=None, count=IMAGES):
    levels = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3)).astype(np.uint8)
    if alter is not None:
        levels[alter, 0, 0, 0] ^= 1
    return levels


def array(alter=None, **how):
    return ImageArray(noise(alter=alter), **how)


def labels(*swapped):
    found = np.arange(IMAGES) % 4
    found[list(swapped)] = found[list(reversed(swapped))]
    return found


def attributes(folder, images, *, swapped=(), **how):
    cells = labels(*swapped)
    rows = [f"{images.name(index)},{cells[index]},{index % 3}" for index in range(IMAGES)]
    (folder / "table.csv").write_text("\n".join(["file,digit,size", *rows]))
    return SameAttribute(images, read_attributes(folder / "table.csv"), **how)


def listed(folder, images, *, last=("0", "7"), shared=("digit",), similarity=0.5):
    pairs = [(str(n), str(n + 1), shared, 0.5) for n in range(200)]
    pairs += [(str(n), str(n + 2), ["!colour", "!size"], None) for n in range(20)]
    with (folder / "pairs.jsonl").open("w") as file:
        for a, b, names, alike in [*pairs, (*last, shared, similarity)]:
            file.write(json.dumps({"image_a": a, "image_b": b, "shared": list(names), "similarity": alike}) + "\n")
    return ListedPairs(images, folder / "pairs.jsonl")


def digits(*, alter=None, swapped=(), augmentation=STILL, weights=None):
    grey = np.ascontiguousarray(noise(alter=alter)[..., 0])
    data = ColouredDigits(grey, labels(*swapped), size=8, augmentation=augmentation)
    return DigitPairs(data, weights or {"digit": 1.0, "colour": 1.0})


def rendered(scale=1.0, names=("digit", "colour")):
    def render(values, generator):
        digit, colour = (values[name] for name in names)
        noise = torch.rand(len(digit), 1, 4, 4, generator=generator)
        return scale * torch.cat([digit.expand_as(noise), colour.expand_as(noise), noise], dim=1)

    def sampler(count, generator):
        return torch.rand(count, 1, 1, 1, generator=generator)

    return GenerativeFactors(render, {"digit": sampler, "colour": sampler})


class Foreign:
    """A source of somebody else, without a digest."""

    concepts = ("digit",)

    def __init__(self, level=0.0):
        self.level = level
        self.asked = []

    def draw(self, count, factors, generator):
        self.asked.append(count)
        images = torch.rand(count, 3, 4, 4, generator=generator) + self.level
        return PairBatch(images, images, torch.ones(count, len(factors), dtype=torch.bool))


SAME_LABEL = {
    "as it is": lambda _: SameLabel(array(), labels(), "digit"),
    "one picture": lambda _: SameLabel(array(alter=299), labels(), "digit"),
    "two labels": lambda _: SameLabel(array(), labels(298, 299), "digit"),
    "augmentation": lambda _: SameLabel(array(augmentation=Augmentation()), labels(), "digit"),
    "another augmentation": lambda _: SameLabel(array(augmentation=Augmentation(zoom=0.2)), labels(), "digit"),
    "range": lambda _: SameLabel(array(value_range=(0, 1)), labels(), "digit"),
    "concept": lambda _: SameLabel(array(), labels(), "number"),
    "unbalanced": lambda _: SameLabel(array(), labels(), "digit", balanced=False),
    "no label": lambda _: SameLabel(array(), [*labels().tolist()[:-1], None], "digit"),
}
VARIANTS = {
    "as it is": lambda _: Variants(array(), labels(), "digit"),
    "one picture": lambda _: Variants(array(alter=299), labels(), "digit"),
    "two groups": lambda _: Variants(array(), labels(298, 299), "digit"),
    "concept": lambda _: Variants(array(), labels(), "number"),
}
UNRELATED = {
    "as it is": lambda _: Unrelated(array()),
    "one picture": lambda _: Unrelated(array(alter=299)),
    "augmentation": lambda _: Unrelated(array(augmentation=Augmentation())),
}
SAME_ATTRIBUTE = {
    "as it is": lambda folder: attributes(folder, array()),
    "one picture": lambda folder: attributes(folder, array(alter=299)),
    "two cells": lambda folder: attributes(folder, array(), swapped=(298, 299)),
    "order of concepts": lambda folder: attributes(folder, array(), concepts=["size", "digit"]),
    "one concept": lambda folder: attributes(folder, array(), concepts=["digit"]),
    "unbalanced": lambda folder: attributes(folder, array(), balanced=False),
    "augmentation": lambda folder: attributes(folder, array(augmentation=Augmentation())),
}
LISTED = {
    "as it is": lambda folder: listed(folder, array()),
    "one picture": lambda folder: listed(folder, array(alter=299)),
    "one pair": lambda folder: listed(folder, array(), last=("0", "8")),
    "one similarity": lambda folder: listed(folder, array(), similarity=0.25),
    "no similarity": lambda folder: listed(folder, array(), similarity=None),
    "what is shared": lambda folder: listed(folder, array(), shared=("digit", "residual")),
    "everything but": lambda folder: listed(folder, array(), shared=("!digit",)),
    "augmentation": lambda folder: listed(folder, array(augmentation=Augmentation())),
}
DIGITS = {
    "as it is": lambda _: digits(),
    "one picture": lambda _: digits(alter=299),
    "two labels": lambda _: digits(swapped=(298, 299)),
    "augmentation": lambda _: digits(augmentation=Augmentation()),
    "another augmentation": lambda _: digits(augmentation=Augmentation(zoom=0.2)),
    "weight": lambda _: digits(weights={"digit": 1.0, "colour": 1.001}),
    "kind": lambda _: digits(weights={"digit": 1.0, "all_but_colour": 1.0}),
}
RENDERED = {
    "as it is": lambda _: rendered(),
    "render": lambda _: rendered(1.5),
    "names": lambda _: rendered(names=("colour", "digit")),
    "sharing": lambda _: Sharing(rendered(), ["digit"]),
    "sharing more": lambda _: Sharing(rendered(), ["digit", "residual", "colour"]),
    "sharing another render": lambda _: Sharing(rendered(1.5), ["digit"]),
    "sharing nothing": lambda _: Sharing(rendered(), []),
    "everything but": lambda _: EverythingBut(rendered(), "digit"),
    "everything but the other": lambda _: EverythingBut(rendered(), "colour"),
}
MIXED = {
    "as it is": lambda _: Mixed([(Unrelated(array()), 200), (rendered(), 1)]),
    "weight": lambda _: Mixed([(Unrelated(array()), 201), (rendered(), 1)]),
    "order": lambda _: Mixed([(rendered(), 1), (Unrelated(array()), 200)]),
    "one picture": lambda _: Mixed([(Unrelated(array(alter=299)), 200), (rendered(), 1)]),
    "render": lambda _: Mixed([(Unrelated(array()), 200), (rendered(1.5), 1)]),
    "foreign": lambda _: Mixed([(Unrelated(array()), 200), (Foreign(), 1)]),
    "another foreign": lambda _: Mixed([(Unrelated(array()), 200), (Foreign(1.0), 1)]),
}
FAMILIES = {
    "same label": SAME_LABEL,
    "variants": VARIANTS,
    "unrelated": UNRELATED,
    "same attribute": SAME_ATTRIBUTE,
    "listed": LISTED,
    "digits": DIGITS,
    "rendered": RENDERED,
    "mixed": MIXED,
}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_change_changes_the_digest_and_the_same_again_does_not(tmp_path, family):
    first, again = ({change: make(tmp_path).digest() for change, make in family.items()} for _ in range(2))
    assert first == again
    assert len(set(first.values())) == len(family)
    assert all(len(digest) == 64 and int(digest, 16) for digest in first.values())


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_fingerprint_of_our_sources_is_their_digest(tmp_path, family):
    source = family["as it is"](tmp_path)
    assert fingerprint(source) == source.digest()


def test_a_digest_is_the_same_in_another_process():
    code = (
        "import torch\n"
        "from iin_training.pairs import GenerativeFactors, Sharing\n"
        "source = GenerativeFactors(lambda values, generator: values['a'] + values['b'],\n"
        "    dict.fromkeys('ab', lambda count, generator: torch.rand(count, 1, 2, 2, generator=generator)))\n"
        "print(Sharing(source, ['a', 'b', 'residual']).digest())"
    )
    seeds = [os.environ | {"PYTHONHASHSEED": seed} for seed in ("1", "2")]
    first, second = (subprocess.check_output([sys.executable, "-c", code], env=env) for env in seeds)
    assert first == second


def test_weights_that_mean_the_same_shares_give_the_same_digest():
    halves, doubles = (Mixed([(rendered(), weight), (Unrelated(array()), weight)]) for weight in (0.5, 2))
    assert halves.digest() == doubles.digest()
    assert digits(weights={"digit": 2, "colour": 2}).digest() == digits().digest()


def test_digits_of_a_kind_too_rare_for_a_batch_are_known_from_those_that_were_drawn_without_it():
    def before(weights):
        total, data = sum(weights.values()), digits()._data
        return digest_of("DigitPairs", data.digest(), *((kind, weight / total) for kind, weight in weights.items()))

    for weights in (
        {"digit": 1.5, "colour": 1.0, "all_but_colour": 0.0},
        {"digit": 1.0, "colour": 1.0, "nothing": 0.1},
    ):
        assert digits(weights=weights).digest() == before(weights)
    rare = {"digit": 1.5, "colour": 1.0, "nothing": 0.02}
    assert digits(weights=rare).digest() != before(rare)


def write(folder, levels):
    folder.mkdir()
    for number, picture in enumerate(levels):
        Image.fromarray(picture).save(folder / f"{number:03}.png")
    return folder


def from_files(folder, **how):
    images = ImageFiles(image_folder(folder), size=(4, 4), folder=folder, console=Console(quiet=True), **how)
    return SameLabel(images, np.arange(len(images)) % 2, "digit")


def test_files_are_known_again_in_another_folder_and_one_altered_picture_is_noticed(tmp_path):
    levels = noise(count=80)
    here, there = (write(tmp_path / name, levels) for name in ("here", "there"))
    digest = from_files(here).digest()
    assert from_files(here).digest() == from_files(there).digest() == digest
    assert from_files(here, augmentation=Augmentation()).digest() != digest
    Image.fromarray(255 - levels[79]).save(there / "079.png")
    assert from_files(there).digest() != digest


def test_a_mixture_with_a_source_that_few_pairs_need_not_show_has_a_fingerprint():
    mixed = Mixed([(Unrelated(array()), 200), (SameLabel(array(), labels(), "digit"), 1)])
    other = Mixed([(Unrelated(array()), 200), (SameLabel(array(), labels(298, 299), "digit"), 1)])
    assert fingerprint(mixed) != fingerprint(other)


def test_a_source_without_a_digest_is_known_by_the_pairs_that_it_draws():
    source = Foreign()
    assert fingerprint(source) == fingerprint(Foreign())
    assert fingerprint(source) != fingerprint(Foreign(1.0))
    assert source.asked == [64, 64]


def test_a_digest_of_a_foreign_source_is_used():
    class Told(Foreign):
        def digest(self):
            return "abc"

    assert fingerprint(Told()) == "abc"


def test_a_digest_that_is_only_inherited_does_not_speak_for_another_draw():
    class Inverted(Unrelated):
        def draw(self, count, factors, generator):
            pairs = super().draw(count, factors, generator)
            return PairBatch(-pairs.images_a, -pairs.images_b, pairs.shared)

    class Renamed(Unrelated):
        pass

    assert fingerprint(Inverted(array())) != fingerprint(Unrelated(array()))
    assert fingerprint(Renamed(array())) == fingerprint(Unrelated(array()))


class ForeignImages:
    """Images of somebody else, without a digest."""

    def __init__(self, levels, shift=0.0):
        self.levels, self.shift, self.loaded = levels, shift, 0

    def __len__(self):
        return len(self.levels)

    def load(self, indices, generator):
        self.loaded += len(indices)
        images = torch.from_numpy(self.levels[indices.numpy()]).permute(0, 3, 1, 2) / 255.0
        return images if generator is None else images + self.shift * torch.rand(1, generator=generator)

    def name(self, index):
        return str(index)


def test_images_without_a_digest_are_all_read():
    sources = [Unrelated(ForeignImages(noise(alter=alter), shift)) for alter in (None, 0, 299) for shift in (0.0, 1.0)]
    assert len({source.digest() for source in sources}) == 6
    assert Unrelated(ForeignImages(noise())).digest() == sources[0].digest()


def test_images_without_a_digest_are_read_once_in_a_process():
    images = ForeignImages(noise())
    sources = [Unrelated(images), SameLabel(images, labels(), "digit")]
    first = [source.digest() for source in sources]
    assert images.loaded == IMAGES + 64
    assert [source.digest() for source in sources] == first
    assert images.loaded == IMAGES + 64


def test_images_without_a_digest_are_not_kept_for_it():
    digests = set()
    for alter in range(5):
        images = ForeignImages(noise(alter=alter))
        digests.add(Unrelated(images).digest())
        gone = weakref.ref(images)
        del images
        assert gone() is None
    assert len(digests) == 5, "where others get the place of images that are gone, they do not get their digest"


class Slotted:
    """Images that nothing can refer to weakly."""

    __slots__ = ("images",)

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def load(self, indices, generator):
        return self.images.load(indices, generator)


def test_images_of_any_class_have_a_digest():
    images = ForeignImages(noise())
    assert Unrelated(Slotted(images)).digest() == Unrelated(images).digest()


def test_images_that_are_loaded_in_another_way_have_another_digest():
    class Inverted(ImageArray):
        def load(self, indices, generator):
            return -super().load(indices, generator)

    digests = {Unrelated(kind(noise(alter=alter))).digest() for kind in (ImageArray, Inverted) for alter in (None, 299)}
    assert len(digests) == 4
