"""Paths through factors: their ends, their distribution, their faults."""

import numpy as np
import pytest
from iin_bundle import FactorLayout
from iin_service.edits import draw_prior
from iin_service.errors import InvalidInput
from iin_service.walks import Interpolation, LinearWalk, RandomWalk, walk

LAYOUT = FactorLayout.from_sizes({"residual": 3, "digit": 4, "colour": 2})
START = np.arange(9, dtype=np.float32)[None]


def frames(path, count, *destination):
    return np.concatenate(list(walk(np.concatenate([START, *destination]), path, count, LAYOUT)))


def test_an_interpolation_ends_exactly_at_its_destination():
    end = np.full((1, 9), np.float32(1 / 3))
    found = frames(Interpolation(LAYOUT.names), 7, end)
    np.testing.assert_array_equal(found[[0, -1]], np.concatenate([START, end]))
    np.testing.assert_allclose(np.diff(found, axis=0), np.tile((end - START) / 6, (6, 1)), atol=1e-5)


@pytest.mark.parametrize(
    "path",
    [Interpolation(("digit",)), RandomWalk(("digit",), seed=3, step=0.5, temperature=1.0)],
    ids=["interpolation", "random walk"],
)
def test_factors_that_are_not_on_a_path_stay_where_they_are(path):
    digit, found = LAYOUT.slice("digit"), frames(path, 5, -1 - START)
    np.testing.assert_array_equal(np.delete(found, digit, axis=1), np.tile(np.delete(START, digit, axis=1), (5, 1)))
    np.testing.assert_array_equal(found[0], START[0])
    assert (np.diff(found[:, digit], axis=0) != 0).all()


def test_a_line_goes_its_distance_whatever_the_length_of_its_direction():
    found = frames(LinearWalk("colour", np.array([30, 40], np.float32), 10.0), 3)
    np.testing.assert_allclose(found[:, 7:] - START[:, 7:], [[0, 0], [3, 4], [6, 8]], atol=1e-5)
    np.testing.assert_array_equal(found[:, :7], np.tile(START[:, :7], (3, 1)))


def test_a_random_walk_has_the_prior_as_its_distribution_and_the_stated_memory():
    found = frames(RandomWalk(("digit",), seed=1, step=0.5, temperature=2.0), 20_000)[50:, 3:7]
    assert abs(found.mean()) < 0.1
    assert abs(found.std() - 2) < 0.05
    kept = np.corrcoef(found[:-1].ravel(), found[1:].ravel())[0, 1]
    assert abs(kept - np.exp(-0.5)) < 0.01


def test_a_random_walk_from_a_sample_of_its_own_seed_keeps_to_the_prior():
    path, squares = {"factors": LAYOUT.names, "step": 0.1, "temperature": 1.0}, []
    for seed in range(400):
        start = draw_prior(seed, [1], 9)
        (_, moved) = walk(start, RandomWalk(seed=seed, **path), 2, LAYOUT)
        squares.append(np.square(moved).mean())
    assert abs(np.mean(squares) - 1) < 0.1


def test_a_longer_random_walk_begins_as_a_shorter_one():
    path = RandomWalk(LAYOUT.names, seed=4, step=0.1, temperature=1.0)
    np.testing.assert_array_equal(frames(path, 5), frames(path, 50)[:5])


def test_an_overflow_names_the_distance():
    with pytest.raises(InvalidInput) as caught:
        frames(LinearWalk("colour", np.ones(2, np.float32), 1e300), 3)
    assert caught.value.field == "linear.distance"


@pytest.mark.filterwarnings("error")
def test_a_random_walk_that_overflows_prints_nothing():
    path = RandomWalk(LAYOUT.names, seed=1, step=0.1, temperature=3e38)
    assert not np.isfinite(frames(path, 200)).all()


def test_truncated_draws_are_those_of_the_prior_within_bounds():
    plain, bounded = draw_prior(3, range(2000), 16), draw_prior(3, range(2000), 16, truncation=1.0)
    assert np.abs(bounded).max() <= 1
    np.testing.assert_array_equal(bounded[np.abs(plain) <= 1], plain[np.abs(plain) <= 1])
    assert abs(bounded.std() - 0.5396) < 0.01  # of a normal distribution cut at one standard deviation
    np.testing.assert_array_equal(draw_prior(3, range(7, 8), 16, truncation=1.0)[0], bounded[7])


def test_every_seed_has_draws_of_its_own():
    seeds = (0, 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1)
    drawn = [draw_prior(seed, range(1), 8).tobytes() for seed in seeds]
    assert len(set(drawn)) == len(seeds)
