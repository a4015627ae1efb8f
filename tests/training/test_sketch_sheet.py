"""Where the sheets of sketches are written: one for each pair of sketches, whatever their concept is called."""

import numpy as np
import pytest
from iin_training import sketch_sheet
from iin_training.data.images import ImageArray
from iin_training.models.frozen import FrozenModel
from iin_training.own_model import OwnModel
from iin_training.pairs import Mixed, Sketches, Unrelated
from iin_training.sketch_sheet import show_sketches
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
