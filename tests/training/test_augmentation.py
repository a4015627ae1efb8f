"""Random distortion of pictures."""

import math
from dataclasses import replace

import pytest
import torch
from iin_training.data.augmentation import STILL, Augmentation, jitter


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_jitter_by_nothing_returns_the_picture_itself():
    grey = torch.rand(3, 1, 8, 8)
    before = generator()
    assert torch.equal(jitter(grey, STILL, before), grey)
    assert torch.equal(before.get_state(), generator().get_state())


@pytest.mark.parametrize("field", ["rotation", "zoom", "shear", "shift"])
def test_every_distortion_moves_pixels_within_range_and_repeats_with_its_generator(field):
    how = replace(STILL, **{field: 0.3})
    axis = torch.linspace(-1, 1, 16).abs()  # a bright square with soft edges
    grey = (1.5 - 2 * torch.maximum(axis[:, None], axis)).clamp(0, 1).expand(4, 1, 16, 16)
    first, again, other = (jitter(grey, how, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, grey)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1 + 1e-6
    assert how.nothing is False


def test_every_pixel_comes_from_where_rotation_zoom_shear_and_shift_say():
    """On ramps, whose values tell the place that they come from; x to the right and y down from the middle."""
    count, height, width = 8, 18, 26
    how = Augmentation(rotation=20.0, zoom=0.2, shear=0.3, shift=2.0)
    limits, draws = (math.radians(20), 0.2, 0.3, 2.0, 2.0), generator(3)
    uniform = [(2 * torch.rand(count, generator=draws) - 1)[:, None, None] * limit for limit in limits]
    angle, zoom, shear, across, down = uniform
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    ramps = torch.stack([0.5 + x / 64, 0.5 + y / 64]).expand(count, 2, height, width)
    from_x = (1 + zoom) * (angle.cos() * x - angle.sin() * y) + shear * y + across
    from_y = (1 + zoom) * (angle.sin() * x + angle.cos() * y) + down
    inside = (from_x.abs() < width / 2 - 2) & (from_y.abs() < height / 2 - 2)
    assert inside.float().mean() > 0.5
    moved = jitter(ramps, how, generator(3))
    for channel, place in enumerate((from_x, from_y)):
        torch.testing.assert_close((moved[:, channel] - 0.5)[inside] * 64, place[inside], atol=0.15, rtol=0)


def test_thin_strokes_stay_brighter_than_bilinear_interpolation_leaves_them():
    strokes = torch.zeros(64, 1, 17, 17)
    strokes[..., 8] = 1
    draws = generator(5)
    *_, across, _ = (2 * torch.rand(64, generator=draws) - 1 for _ in range(5))
    peaks = jitter(strokes, replace(STILL, shift=1.0), generator(5))[:, 0, 8].amax(dim=1)
    bilinear = torch.maximum(across.abs(), 1 - across.abs())
    assert float((peaks - bilinear).mean()) > 0.05


def test_a_shift_is_measured_in_pixels():
    """A picture with one bright pixel keeps it within the largest displacement."""
    grey = torch.zeros(64, 1, 17, 17)
    grey[:, :, 8, 8] = 1
    moved = jitter(grey, Augmentation(rotation=0, zoom=0, shear=0, shift=2), generator())
    where = (moved.flatten(1)[:, :, None] * torch.cartesian_prod(torch.arange(17.0), torch.arange(17.0))).sum(1)
    offset = where / moved.flatten(1).sum(1, keepdim=True) - 8
    assert float(offset.abs().max()) <= 2 + 1e-3
    assert float(offset.abs().max()) > 1.5


def test_empty_corners_take_the_background():
    white = torch.ones(8, 3, 16, 16)
    how = Augmentation(rotation=45.0, zoom=0.5, shear=0.3, shift=4.0, background=1.0)
    assert torch.equal(jitter(white, how, torch.Generator().manual_seed(0)), white)
    assert jitter(white, replace(how, background=0.0), torch.Generator().manual_seed(0)).min() == 0


@pytest.mark.parametrize(("height", "width"), [(20, 60), (60, 20)])
@pytest.mark.parametrize("field", ["rotation", "shear", "shift"])
def test_a_picture_that_is_not_square_is_distorted_as_the_square_that_holds_it(field, height, width):
    """In pixels, with black around, so that only the middle of the canvas is lit and nothing leaves either."""
    limits = {"rotation": 30.0, "shear": 0.3, "shift": 4.0}
    how = replace(STILL, **{field: limits[field]})
    grey = torch.zeros(16, 1, 60, 60)
    grey[:, :, 26:34, 24:36] = torch.rand(16, 1, 8, 12, generator=generator())
    top, left = (60 - height) // 2, (60 - width) // 2
    part = (..., slice(top, top + height), slice(left, left + width))
    if field == "shift":  # of each axis, in its own pixels: 4 at most, both ways
        draws = torch.Generator().manual_seed(2)
        *_, across, down = ((2 * torch.rand(16, generator=draws) - 1) * 4 for _ in range(5))
        moved = jitter(grey[part], how, generator(2))[:, 0]
        light = grey[part][:, 0]
        for axis, by in ((1, down), (2, across)):
            where = torch.arange(float(moved.shape[axis]))
            found, before = ((picture.sum(3 - axis) * where).sum(1) / picture.sum((1, 2)) for picture in (moved, light))
            torch.testing.assert_close(before - found, by, atol=0.05, rtol=0)  # what overshoots is cut off
        return
    expected = jitter(grey, how, generator(2))[part]
    torch.testing.assert_close(jitter(grey[part], how, generator(2)), expected, atol=1e-4, rtol=0)
