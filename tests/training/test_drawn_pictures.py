"""The page that shows what a trained interpretation does."""

import numpy as np
import pytest
import torch
from iin_bundle import FactorLayout
from iin_training import pictures
from iin_training.flows import interpretation_flow
from iin_training.models.autoencoder import Autoencoder, freeze
from iin_training.models.frozen import FrozenModel
from iin_training.pictures import draw_pictures
from matplotlib.axes import Axes
from PIL import Image

LAYOUT = FactorLayout.from_sizes({"residual": 2, "digit": 1, "colour": 1})


def page(path, *, channels=3, decoder=True, layout=LAYOUT, seed=0):
    """The page as an array `(H, W, 3)`."""
    torch.manual_seed(0)
    model = freeze(Autoencoder(image_size=8, channels=channels, width=4, latent_size=4).eval())
    if not decoder:
        parts = model.networks()
        model = FrozenModel(parts["encoder"], image_shape=model.image_shape, value_range=(-1.0, 1.0))
    flow = interpretation_flow(4, blocks=2, hidden=8, depth=1, seed=0).eval()
    images = torch.rand(20, channels, 8, 8) * 2 - 1
    draw_pictures(path, model, flow, layout, images, torch.Generator().manual_seed(seed))
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
def test_only_samples_depend_on_the_seed(tmp_path, channels):
    first, second = (page(tmp_path / "page.png", channels=channels, seed=seed) for seed in (0, 1))
    differs = np.flatnonzero((first != second).any(axis=(1, 2)))
    assert len(differs)
    assert differs[0] > 0.6 * len(first)  # samples come last


def test_every_factor_has_its_grid(tmp_path):
    three, one = (
        page(tmp_path / "page.png", layout=FactorLayout.from_sizes(sizes))
        for sizes in ({"residual": 2, "digit": 1, "colour": 1}, {"residual": 4})
    )
    assert len(three) > 1.5 * len(one)  # without a named factor there is nothing to swap


def test_rows_bear_the_names_of_what_they_show(tmp_path, monkeypatch):
    written, write = [], Axes.text
    monkeypatch.setattr(
        Axes, "text", lambda self, x, y, text, **how: written.append(text) or write(self, x, y, text, **how)
    )
    page(tmp_path / "page.png")
    assert written == ["pictures", "decoded", "residual", "digit", "colour"]


@pytest.mark.parametrize("decoder", [True, False], ids=["swaps", "maps"])
def test_dollars_in_a_name_are_no_formula(tmp_path, decoder):
    layout = FactorLayout.from_sizes({"residual": 2, "in $x^$": 2})
    assert page(tmp_path / "page.png", decoder=decoder, layout=layout).shape[2] == 3


def test_places_in_an_order_are_spread_however_far_a_single_one_is():
    values = torch.tensor([[1.0, 0.0], [1e6, 0.0], [2.0, 5.0], [3.0, -5.0]])
    assert pictures._ranks(values).tolist() == [[0, 1], [3, 1], [1, 2], [2, 0]]


def test_without_a_decoder_pictures_are_laid_out_by_their_factors(tmp_path):
    drawn = page(tmp_path / "page.png", decoder=False)
    assert drawn.shape[0] == drawn.shape[1]  # three maps and one place left, in two rows
    lower_right = drawn[len(drawn) // 2 + 50 :, drawn.shape[1] // 2 + 50 :]
    assert (lower_right == 255).all()
    assert (drawn[: len(drawn) // 2] != 255).any()
