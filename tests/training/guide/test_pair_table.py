"""The guide's table of sources of pairs: every line makes the source that it promises."""

import csv
import itertools
import json

import numpy as np
import pytest
import torch
from iin_training.data.digits import load_digits
from iin_training.data.images import ImageArray
from iin_training.pairs import MIN_PAIRS
from PIL import Image

from .conftest import BLOCKS, SOURCES, practised_little

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies


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
    (lines,) = (block for kind, block in BLOCKS if kind == "json")
    others = (row.split(",") for row in more)
    objects = [json.dumps({"image_a": a, "image_b": b, "shared": [shared]}) for a, b, shared, _ in others]
    (folder / "pairs.jsonl").write_text(lines + "\n".join(objects))


CONCEPTS = {
    "SameLabel": ("digit",),
    "Variants": ("light",),
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


def test_a_list_of_pairs_says_the_same_as_json_lines(names):
    listed = [eval(code_of("ListedPairs").replace("pairs.csv", name), names) for name in ("pairs.csv", "pairs.jsonl")]
    assert listed[0].digest() == listed[1].digest()
