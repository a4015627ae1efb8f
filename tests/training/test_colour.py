"""Drawing in colour, and measuring the colour of a picture."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from iin_training.data.colour import draw, measure_colour, pad_to, random_colours

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
