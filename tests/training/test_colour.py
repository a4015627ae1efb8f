"""Drawing in colour, distorting, and measuring the colour of a picture."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from iin_training.data.colour import Augmentation, draw, jitter, measure_colour, pad_to, random_colours
from torch.nn import functional

STILL = Augmentation(rotation=0, zoom=0, shear=0, shift=0)
PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(count, size=16):
    """Grey pictures with a smooth blob each, of full brightness in the middle."""
    axis = torch.linspace(-1, 1, size)
    square = torch.maximum(axis.abs()[:, None], axis.abs()[None, :])
    return (1.5 - 2 * square).clamp(0, 1).expand(count, 1, size, size)


@PROPERTY
@given(seed=st.integers(0, 2**31), count=st.integers(1, 5))
def test_drawn_pictures_stay_in_range_with_a_black_background(seed, count):
    grey = torch.rand(count, 1, 8, 8, generator=generator(seed))
    grey[:, :, 0] = 0
    images = draw(grey, random_colours(count, generator(seed)))
    assert images.shape == (count, 3, 8, 8)
    assert float(images.min()) == -1
    assert float(images.max()) <= 1
    assert (images[:, :, 0] == -1).all()


@PROPERTY
@given(seed=st.integers(0, 2**31), count=st.integers(1, 5))
def test_the_measured_colour_is_the_colour_that_was_drawn(seed, count):
    colours = random_colours(count, generator(seed))
    torch.testing.assert_close(measure_colour(draw(blobs(count), colours)), colours, rtol=0, atol=1e-6)


def test_a_black_picture_measures_as_black():
    assert measure_colour(torch.full((2, 3, 8, 8), -1.0)).tolist() == [[0, 0, 0]] * 2


def test_the_brightest_pixel_of_one_picture_does_not_decide_for_another():
    colours = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.2, 0.1]])
    torch.testing.assert_close(measure_colour(draw(blobs(2), colours)), colours)


def test_random_colours_are_uniform_and_reproducible():
    colours = random_colours(20_000, generator())
    assert torch.equal(colours, random_colours(20_000, generator()))
    torch.testing.assert_close(colours.mean(dim=0), torch.full((3,), 0.5), rtol=0, atol=0.01)
    torch.testing.assert_close(colours.std(dim=0), torch.full((3,), 12**-0.5), rtol=0, atol=0.01)


def test_jitter_by_nothing_returns_the_picture_itself():
    grey = torch.rand(3, 1, 8, 8)
    before = generator()
    assert torch.equal(jitter(grey, STILL, before), grey)
    assert torch.equal(before.get_state(), generator().get_state())


@pytest.mark.parametrize("field", ["rotation", "zoom", "shear", "shift"])
def test_every_distortion_moves_pixels_within_range_and_repeats_with_its_generator(field):
    how = Augmentation(**{"rotation": 0, "zoom": 0, "shear": 0, "shift": 0, field: 0.3})
    grey = blobs(4)
    first, again, other = (jitter(grey, how, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, grey)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1 + 1e-6
    assert how.nothing is False


def test_a_shift_is_measured_in_pixels():
    """A picture with one bright pixel keeps it within the largest displacement."""
    grey = torch.zeros(64, 1, 17, 17)
    grey[:, :, 8, 8] = 1
    moved = jitter(grey, Augmentation(rotation=0, zoom=0, shear=0, shift=2), generator())
    where = (moved.flatten(1)[:, :, None] * torch.cartesian_prod(torch.arange(17.0), torch.arange(17.0))).sum(1)
    offset = where / moved.flatten(1).sum(1, keepdim=True) - 8
    assert float(offset.abs().max()) <= 2 + 1e-3
    assert float(offset.abs().max()) > 1.5


@PROPERTY
@given(height=st.integers(1, 12), width=st.integers(1, 12))
def test_padding_centres_the_picture_and_adds_black(height, width):
    images = np.full((2, height, width), 255, dtype=np.uint8)
    padded = pad_to(images, 12)
    assert padded.shape == (2, 1, 12, 12)
    assert float(padded.sum()) == 2 * height * width
    rows, columns = padded[0, 0].sum(1).nonzero().flatten(), padded[0, 0].sum(0).nonzero().flatten()
    assert abs(int(rows[0]) - (11 - int(rows[-1]))) <= 1
    assert abs(int(columns[0]) - (11 - int(columns[-1]))) <= 1


def test_a_picture_larger_than_its_square_is_refused():
    with pytest.raises(ValueError, match=r"data\.image_size: expected at least 28 for pictures of 28x20, got 16"):
        pad_to(np.zeros((1, 28, 20), dtype=np.uint8), 16)


def test_empty_corners_take_the_background():
    white = torch.ones(8, 3, 16, 16)
    how = Augmentation(rotation=45.0, zoom=0.5, shear=0.3, shift=4.0, background=1.0)
    assert torch.equal(jitter(white, how, torch.Generator().manual_seed(0)), white)
    assert jitter(white, replace(how, background=0.0), torch.Generator().manual_seed(0)).min() == 0


def before_it_knew_of_heights(grey, how, generator):
    """The distortion as it was written for square pictures."""
    count, size = len(grey), grey.shape[-1]

    def uniform(limit):
        return (2 * torch.rand(count, generator=generator) - 1) * limit

    angle, scale, shear = uniform(math.radians(how.rotation)), 1 + uniform(how.zoom), uniform(how.shear)
    shift_x, shift_y = (uniform(2 * how.shift / size) for _ in range(2))
    rows = [
        torch.stack([scale * angle.cos(), shear - scale * angle.sin(), shift_x], dim=1),
        torch.stack([scale * angle.sin(), scale * angle.cos(), shift_y], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(grey.shape), align_corners=False)
    moved = functional.grid_sample(grey - how.background, grid, mode="bicubic", align_corners=False)
    return (moved + how.background).clamp(0, 1)


@pytest.mark.parametrize("size", [8, 28, 64])
def test_square_pictures_are_distorted_to_the_bit_as_ever(size):
    grey = torch.rand(6, 3, size, size, generator=generator())
    how = Augmentation(background=0.3)
    assert torch.equal(jitter(grey, how, generator(1)), before_it_knew_of_heights(grey, how, generator(1)))


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
