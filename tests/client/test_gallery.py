"""Swaps and interpolations ask for what the gallery's captions promise."""

import numpy as np
from iin_client.gallery import STRENGTHS, interpolation, swaps


def test_a_row_of_a_swap_grid_is_a_source_and_a_column_a_target():
    factors = np.array([[0, 10], [1, 11], [2, 12]], dtype=np.float32)
    targets, sources = (array.reshape(3, 3, 2) for array in swaps(factors))
    for row in range(3):
        for column in range(3):
            np.testing.assert_array_equal(targets[row, column], factors[column])
            np.testing.assert_array_equal(sources[row, column], factors[row])


def test_an_interpolation_leads_from_target_to_source_in_equal_steps():
    target, source = np.array([0, 8], dtype=np.float32), np.array([8, -8], dtype=np.float32)
    targets, sources = interpolation(target, source)
    assert STRENGTHS == (0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1)
    np.testing.assert_array_equal(targets, [target] * 9)
    np.testing.assert_array_equal(sources[0], target)
    np.testing.assert_array_equal(sources[-1], source)
    np.testing.assert_array_equal(np.diff(sources, axis=0), [[1, -2]] * 8)
    assert sources.dtype == np.float32
