"""Where the sheets of sketches are written: one for each pair of sketches, whatever their concept is called."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from iin_training import sketch_sheet
from iin_training.data.images import ImageArray
from iin_training.models.frozen import FrozenModel
from iin_training.own_model import OwnModel
from iin_training.pairs import Mixed, Sketches, Unrelated
from iin_training.sketch_sheet import draw_sheet, show_sketches
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from torch import nn


@pytest.mark.parametrize(
    ("concepts", "names"),
    [
        (["day/night"], ["sketches-day-night.png"]),
        (["light", "tint", "light"], ["sketches-light-2.png", "sketches-light.png", "sketches-tint.png"]),
    ],
    ids=["a slash", "one concept twice"],
)
def test_every_pair_of_sketches_has_its_sheet(tmp_path, monkeypatch, concepts, names):
    monkeypatch.setattr(sketch_sheet, "draw_sheet", lambda source: Figure())
    levels = np.random.default_rng(0).integers(0, 256, (20, 20, 20), dtype=np.uint8)
    sketches = tmp_path / "a.png", tmp_path / "b.png"
    for path, picture in zip(sketches, levels, strict=False):
        Image.fromarray(picture).save(path)
    images = ImageArray(levels)
    sources = [(Sketches(images, *sketches, concept, folder=tmp_path / "kept"), 1.0) for concept in concepts]
    model = FrozenModel(nn.Flatten(), image_shape=(1, 20, 20), value_range=(-1.0, 1.0))
    unrelated = Unrelated(images)
    recipe = OwnModel(name="mine", model=model, pairs=Mixed([*sources, (unrelated, 1.0)]), held_out=Mixed(sources))
    show_sketches(recipe, tmp_path / "run", Console(quiet=True))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == names


@pytest.mark.parametrize("size", [(18, 1800), (1800, 18), (256, 4096)], ids=lambda size: "x".join(map(str, size)))
def test_a_sheet_of_pictures_of_any_shape_is_at_most_4000_pixels_wide_and_high(size):
    levels = np.zeros((2, *size), np.uint8)
    source = SimpleNamespace(
        images=ImageArray(levels),
        paths=(Path("a.png"), Path("b.png")),
        sketches=ImageArray(levels).load(torch.arange(2), None),
        redraw=lambda pictures: (pictures, pictures),
    )
    assert draw_sheet(source).bbox.max.max() <= 4000


@pytest.mark.parametrize(
    "size", [(32, 32), (256, 32), (24, 24), (512, 512), (1024, 256)], ids=lambda size: "x".join(map(str, size))
)
def test_a_sheet_can_be_opened_and_its_titles_lie_within_it(tmp_path, size):
    levels = np.random.default_rng(0).integers(0, 256, (12, *size, 3), dtype=np.uint8)
    source = SimpleNamespace(
        images=ImageArray(levels),
        paths=(Path("by-day.png"), Path("by-night.png")),
        sketches=ImageArray(levels[:2]).load(torch.arange(2), None),
        redraw=lambda pictures: (pictures, -pictures),
    )
    figure = draw_sheet(source)
    figure.savefig(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert 300 < sheet.width <= 1000
        assert 1400 < sheet.height <= 4000
    titles = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    assert len(titles) == 3
    assert titles[0].x0 >= 0
    assert all(left.x1 < right.x0 for left, right in pairwise(titles))
    assert titles[-1].x1 <= figure.bbox.x1
