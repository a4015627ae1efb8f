"""Distances between sets of features: what can be worked out by hand, and the laws that they obey."""

import numpy as np
import pytest
from iin_training.distances import frechet_distance, kernel_distance


def normal(rows, width=6, seed=0, shift=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(shift, scale, (rows, width))


def kernel(a, b):
    return kernel_distance(a, b, seed=0)


def frechet(a, b):
    return frechet_distance(a, b)


BOTH = pytest.mark.parametrize("distance", [kernel, frechet])


def test_the_kernel_distance_of_few_numbers_is_that_worked_out_by_hand():
    # Width 1, kernel (xy + 1)^3: k(0, 1) = 1 within a, k(1, 2) = 27 within b, and 1, 1, 8, 27 between them.
    a, b = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    assert kernel(a, b) == pytest.approx(1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)
    # Width 2: x . y / 2 + 1 is 1 within a, 2 within b, and 1, 1, 2, 2 between them.
    a, b = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 1.0], [1.0, 1.0]])
    assert kernel(a, b) == pytest.approx(1 + 8 - 2 * (1 + 1 + 8 + 8) / 4)


def test_the_kernel_distance_is_the_mean_over_all_pairs_of_different_rows():
    a, b = normal(5), normal(7, seed=1, shift=0.5)

    def k(x, y):
        return (x @ y / 6 + 1) ** 3

    within_a = np.mean([k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    within_b = np.mean([k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    between = np.mean([k(x, y) for x in a for y in b])
    assert kernel(a, b) == pytest.approx(within_a + within_b - 2 * between)


def test_the_kernel_distance_of_one_distribution_is_zero_on_average():
    found = [kernel(normal(40, seed=2 * seed), normal(60, seed=2 * seed + 1)) for seed in range(400)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 20
    assert min(found) < 0 < max(found)


def test_the_kernel_distance_of_large_sets_is_that_of_their_subsets():
    a, b = normal(2500), normal(1800, seed=1, shift=0.3)
    found = kernel_distance(a, b, seed=0)
    assert found == kernel_distance(a, b, seed=0)
    assert found != kernel_distance(a, b, seed=1)
    # Subsets are unbiased for the whole sets.
    products = [x @ y.T / 6 + 1 for x, y in ((a, a), (b, b), (a, b))]
    within = [((p**3).sum() - (np.diag(p) ** 3).sum()) / (len(p) * (len(p) - 1)) for p in products[:2]]
    assert found == pytest.approx(sum(within) - 2 * (products[2] ** 3).mean(), rel=0.05)


@pytest.mark.parametrize("rows", [(50, 80), (50, 4), (5, 4)], ids=["many", "one few", "both few"])
def test_the_frechet_distance_is_that_by_the_root_of_the_product_of_covariances(rows):
    a, b = normal(rows[0], scale=2.0), normal(rows[1], seed=1, shift=1.0) @ normal(6, seed=2)
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    # tr (C_a C_b)^(1/2) is the sum of the singular values of the product of the roots of both, which are symmetric.
    roots = [vectors * np.sqrt(values.clip(min=0)) @ vectors.T for values, vectors in map(np.linalg.eigh, covariances)]
    inner = np.linalg.svd(roots[0] @ roots[1], compute_uv=False)
    shift = a.mean(axis=0) - b.mean(axis=0)
    expected = shift @ shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * inner.sum()
    assert frechet(a, b) == pytest.approx(expected, rel=1e-6)


def test_the_frechet_distance_of_two_axes_is_that_worked_out_by_hand():
    # Standard deviations 1 and 3 on one axis, means 0 and 2: (0 - 2)^2 + (1 - 3)^2.
    a, b = np.array([[-1.0], [1.0]]) / np.sqrt(2), 2 + 3 * np.array([[-1.0], [1.0]]) / np.sqrt(2)
    assert frechet(a, b) == pytest.approx(8)
    # Variances 2 and 8, each on an axis that the other set does not have: nothing of them overlaps.
    a, b = np.array([[-1.0, 0], [1, 0]]), np.array([[0, -2.0], [0, 2]])
    assert frechet(a, b) == pytest.approx(10)


@pytest.mark.parametrize("rows", [500, 4])
def test_a_shift_adds_its_square_to_the_frechet_distance(rows):
    a, b, shift = normal(rows), normal(rows, seed=1), np.array([1.0, -2, 0, 0.5, 0, 3])
    b += a.mean(axis=0) - b.mean(axis=0)
    assert frechet(a, b + shift) == pytest.approx(frechet(a, b) + shift @ shift)
    assert frechet(a, a + shift) == pytest.approx(shift @ shift)


@pytest.mark.parametrize("rows", [500, 20])
def test_the_frechet_distance_of_a_set_to_itself_is_zero_even_with_features_that_never_vary(rows):
    a = normal(rows, width=40) * (np.arange(40) % 3 > 0)
    assert 0 <= frechet(a, a[::-1]) < 1e-8


@BOTH
def test_distances_are_symmetric_and_do_not_depend_on_the_order_of_rows_and_columns(distance):
    a, b = normal(30), normal(50, seed=1, shift=0.4)
    assert distance(a, b) == pytest.approx(distance(b, a))
    assert distance(a, b) == pytest.approx(distance(a[::-1], b))
    assert distance(a, b) == pytest.approx(distance(a[:, ::-1], b[:, ::-1]))


@BOTH
def test_distances_grow_with_what_is_added(distance):
    a = normal(800)
    found = [distance(a, normal(800, seed=1, scale=1 + extra, shift=extra)) for extra in (0, 0.2, 0.5, 1)]
    assert found == sorted(found)
    assert found[1] > 3 * abs(found[0])


@BOTH
def test_float32_is_computed_in_float64(distance):
    a, b = normal(300).astype(np.float32) + 100, normal(300, seed=1).astype(np.float32) + 100
    assert distance(a, b) == distance(a.astype(np.float64), b.astype(np.float64))
