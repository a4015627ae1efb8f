"""Factor algebra: each edit changes its factor as documented and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iin_bundle import FactorLayout
from iin_service.edits import Edit, Purpose, Replace, Resample, SetValue, Shift, change, draw_prior
from iin_service.errors import InvalidInput
from iin_service.items import Given

LAYOUT = FactorLayout.from_sizes({"residual": 5, "digit": 3, "colour": 2})
DIGIT = LAYOUT.slice("digit")


def vectors(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 10), dtype=np.float32)


def edited(factors, operation):
    """`factors` with the operation applied to their digit; a source is one of factors."""
    found, source = factors.copy(), operation.source.items if isinstance(operation, Replace) else None
    change(found, Edit("digit", operation), LAYOUT, source)
    return found


def replace(source, strength):
    return Replace(Given("factors", source, "source"), strength)


OPERATIONS = {
    "replace": replace(vectors(4, seed=1), 0.3),
    "replace by one": replace(vectors(1, seed=1), 1.0),
    "set": SetValue(np.array([1, 2, 3], np.float32)),
    "resample": Resample(7, 0.8),
    "shift": Shift(np.array([0, 3, 4], np.float32), 2.0),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_an_edit_changes_its_factor_and_leaves_the_others_alone(operation):
    before = vectors(4)
    after = edited(before, operation)
    np.testing.assert_array_equal(np.delete(after, range(5, 8), axis=1), np.delete(before, range(5, 8), axis=1))
    assert not np.array_equal(after[:, DIGIT], before[:, DIGIT])


@settings(deadline=None, max_examples=30, derandomize=True)
@given(strength=st.floats(0, 1, width=32))
def test_replace_moves_along_a_straight_line(strength):
    before, source = vectors(4), vectors(4, seed=1)
    after = edited(before, replace(source, strength))
    expected = (1 - strength) * before[:, DIGIT] + strength * source[:, DIGIT]
    np.testing.assert_allclose(after[:, DIGIT], expected, atol=1e-6)


@pytest.mark.parametrize(("strength", "expected"), [(0.0, 0), (1.0, 1)])
def test_replace_is_exact_at_both_ends(strength, expected):
    both = vectors(4), vectors(4, seed=1)
    after = edited(both[0], replace(both[1], strength))
    np.testing.assert_array_equal(after[:, DIGIT], both[expected][:, DIGIT])


def test_shift_moves_by_its_distance_whatever_the_direction_measures():
    before = vectors(4)
    after = edited(before, Shift(np.array([0, 3, 4], np.float32), 2.0))
    np.testing.assert_allclose(after[:, DIGIT] - before[:, DIGIT], np.tile([0, 1.2, 1.6], (4, 1)), atol=1e-6)


def test_set_gives_every_target_the_values_in_their_order():
    after = edited(vectors(4), SetValue(np.array([1, 2, 3], np.float32)))
    np.testing.assert_array_equal(after[:, DIGIT], [[1, 2, 3]] * 4)


def test_an_overflow_is_the_callers_mistake():
    factors = np.full((1, 10), 3e38, np.float32)
    with pytest.raises(InvalidInput, match="finite"):
        edited(factors, Shift(np.array([1, 0, 0], np.float32), 3e38))


def test_resampling_draws_every_target_anew_and_again_the_same():
    first, again = (edited(vectors(4), Resample(7, 1.0))[:, DIGIT] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first)) == first.size
    np.testing.assert_array_equal(edited(vectors(2), Resample(7, 1.0))[:, DIGIT], first[:2])


def test_resampling_takes_the_factors_part_of_a_whole_draw_times_the_temperature():
    after = edited(vectors(4), Resample(7, 0.8))
    whole = draw_prior(7, range(4), 10, purpose=Purpose.RESAMPLE)
    np.testing.assert_array_equal(after[:, DIGIT], np.float32(0.8) * whole[:, DIGIT])


@pytest.mark.parametrize("purpose", Purpose)
def test_what_a_seed_gives_a_purpose_tells_nothing_of_the_others(purpose):
    one = draw_prior(3, range(20_000), 4, purpose=purpose)
    for other in set(Purpose) - {purpose}:
        found = np.corrcoef(one.T, draw_prior(3, range(20_000), 4, purpose=other).T)[:4, 4:]
        np.testing.assert_allclose(found, 0, atol=0.03)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(seed=st.integers(0, 2**64 - 1), start=st.integers(0, 10_000), size=st.integers(1, 64))
def test_a_draw_depends_on_seed_and_index_alone(seed, start, size):
    together = draw_prior(seed, range(start, start + 5), size)
    alone = draw_prior(seed, range(start + 3, start + 4), size)
    np.testing.assert_array_equal(together[3:4], alone)


@pytest.mark.parametrize(
    ("seed", "index", "truncation", "bits"),
    [
        (0, 0, None, "4665753dd6ed7e3c520c95bf"),
        (7, 9999, None, "38568f3f418972bfa5da1a3f"),
        (7, 9999, 0.5, "ad5686bef80a6bbe10ededbe"),
        (2**64 - 1, 5, None, "8c938cbd0e6aaa3d5f7a13be"),
    ],
)
def test_a_seed_gives_what_it_gave_in_earlier_releases(seed, index, truncation, bits):
    for before in ([], [3], [index]):  # whatever the generator did before
        drawn = draw_prior(seed, [*before, index], 3, truncation)
        assert drawn[-1].astype("<f4").tobytes().hex() == bits


@pytest.mark.parametrize(
    ("purpose", "bits"),
    [
        (Purpose.SAMPLE, "38568f3f418972bfa5da1a3f"),
        (Purpose.RESAMPLE, "d1c1473f4e51db3fec068f3f"),
        (Purpose.WALK, "e007f9bc029f663f2a5feebe"),
        (Purpose.RESPONSE, "6fe2bdbf8347af3e4f1d063f"),
    ],
)
def test_a_seed_gives_every_purpose_what_it_gave_it_in_earlier_releases(purpose, bits):
    assert draw_prior(7, [9999], 3, purpose=purpose)[0].astype("<f4").tobytes().hex() == bits


@pytest.mark.filterwarnings("error")
def test_draws_that_overflow_are_infinite_and_print_nothing():
    assert np.isinf(draw_prior(0, range(100), 10, temperature=3e38)).any()


def test_draws_are_standard_normal_and_independent():
    draws = draw_prior(3, range(20_000), 4)
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(draws.T), np.eye(4), atol=0.03)
    np.testing.assert_allclose(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1], 0, atol=0.03)
