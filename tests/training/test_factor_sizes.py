"""Factor sizes from latents whose true correlation is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iin_training.factor_sizes import allot_sizes, paper_scores, reference_scores

PAIRS = 20_000
ESTIMATORS = pytest.mark.parametrize("estimate", [reference_scores, paper_scores])


def correlated(numbers, correlation):
    """Pairs of standard normal latents, each dimension with its own correlation."""
    correlation = np.asarray(correlation)
    first = numbers.standard_normal((PAIRS, len(correlation)))
    noise = numbers.standard_normal(first.shape)
    return first.astype(np.float32), (correlation * first + np.sqrt(1 - correlation**2) * noise).astype(np.float32)


def test_scores_come_from_the_known_correlation_of_pairs():
    numbers = np.random.default_rng(0)
    correlation = {"digit": [0.9, 0.5, 0.0, 0.0], "colour": [0.0, 0.0, 0.3, 0.8]}
    pairs = {name: correlated(numbers, values) for name, values in correlation.items()}
    reference, paper = reference_scores(pairs), paper_scores(pairs)
    assert list(reference) == list(paper) == ["residual", "digit", "colour"]
    assert reference["residual"] == 1.0
    assert paper["residual"] == 4.0
    for name, values in correlation.items():
        assert reference[name] == pytest.approx(np.mean(values), abs=0.02)
        assert paper[name] == pytest.approx(np.sum(values), abs=0.05)


def test_loud_dimensions_count_more_in_the_reference_only():
    first, second = correlated(np.random.default_rng(1), [1.0, 0.0])
    loudness = np.array([3.0, 1.0], dtype=np.float32)
    pairs = {"digit": (first * loudness, second * loudness)}
    assert reference_scores(pairs)["digit"] == pytest.approx(9 / 10, abs=0.02)
    assert paper_scores(pairs)["digit"] == pytest.approx(1.0, abs=0.02)


@ESTIMATORS
def test_an_offset_of_the_latents_changes_no_score(estimate):
    first, second = correlated(np.random.default_rng(2), [0.7, 0.2, 0.0])
    offset = np.array([5.0, -3.0, 1.0], dtype=np.float32)
    plain = estimate({"digit": (first, second)})
    moved = estimate({"digit": (first + offset, second + offset)})
    assert moved == pytest.approx(plain, abs=1e-3)


@ESTIMATORS
def test_equal_pairs_explain_everything_and_unrelated_ones_nothing(estimate):
    first, other = correlated(np.random.default_rng(3), [0.0] * 3)
    scores = estimate({"same": (first, first), "unrelated": (first, other)})
    assert scores["same"] == pytest.approx(scores["residual"], abs=0.02)
    assert scores["unrelated"] == pytest.approx(0, abs=0.04)


@ESTIMATORS
def test_unrelated_pairs_explain_nothing_however_far_apart_concepts_and_dimensions_lie(estimate):
    numbers = np.random.default_rng(6)
    offsets = {"digit": [5, -3, 1], "colour": [-4, 2, 0]}
    pairs = {
        name: tuple(side + np.float32(offset) for side in correlated(numbers, [0.0] * 3))
        for name, offset in offsets.items()
    }
    scores = estimate(pairs)
    assert [scores[name] for name in offsets] == pytest.approx([0, 0], abs=0.04)


@ESTIMATORS
def test_spatial_latents_count_like_flat_ones(estimate):
    first, second = correlated(np.random.default_rng(4), [0.5] * 4)
    spatial = {"digit": (first.reshape(-1, 1, 2, 2), second.reshape(-1, 1, 2, 2))}
    assert estimate(spatial) == pytest.approx(estimate({"digit": (first, second)}))


def test_a_dimension_that_never_varies_is_uncorrelated():
    first, second = correlated(np.random.default_rng(5), [0.5, 0.5])
    first[:, 0] = second[:, 0] = 2
    scores = paper_scores({"digit": (first, second)})
    assert scores["digit"] == pytest.approx(0.5, abs=0.02)


def test_latents_that_never_vary_are_refused():
    constant = np.ones((10, 3), dtype=np.float32)
    with pytest.raises(ValueError, match="expected latents that vary, got constant ones"):
        reference_scores({"digit": (constant, constant)})


def test_published_scores_give_published_sizes():
    """ColorMNIST autoencoder, released code: 13 digit, 17 colour, 34 residual."""
    scores = {"residual": 1.0, "digit": np.log(13.5 / 34 * np.e), "colour": np.log(17.3 / 34 * np.e)}
    assert allot_sizes(scores, 64) == {"residual": 34, "digit": 13, "colour": 17}


def test_sizes_are_rounded_down_and_the_residual_takes_the_rest():
    equal = {"residual": 1.0, "digit": 1.0, "colour": 1.0}
    assert allot_sizes(equal, 11) == {"residual": 5, "digit": 3, "colour": 3}


@settings(max_examples=50, deadline=None, derandomize=True)
@given(scores=st.lists(st.floats(-0.1, 1.0), min_size=1, max_size=5), size=st.integers(32, 256))
def test_sizes_always_sum_to_the_latents_and_keep_the_order_of_the_names(scores, size):
    named = {"residual": 1.0} | {f"factor {index}": score for index, score in enumerate(scores)}
    sizes = allot_sizes(named, size)
    assert list(sizes) == list(named)
    assert sum(sizes.values()) == size
    weights = np.exp(np.array(list(named.values())))
    for (name, count), share in zip(sizes.items(), weights / weights.sum() * size, strict=True):
        assert count >= 1
        if name != "residual":
            assert share - 1 - 1e-9 <= count <= share + 1e-9


def test_a_concept_without_a_dimension_is_an_error_with_remedies_for_either_estimator():
    told = r"colour would get 0 of 64 dimensions.*set the sizes by hand.*larger latents; where .* is paper, reference"
    with pytest.raises(ValueError, match=told):
        allot_sizes({"residual": 64.0, "digit": 63.0, "colour": 1.0}, 64)
