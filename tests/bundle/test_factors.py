"""A layout of factors splits a vector into named slices and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iin_bundle import FactorLayout, FactorSlice, LogLikelihoodQuantiles

PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)
SIZES = st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 9), max_size=5).flatmap(
    lambda sizes: st.permutations([*(sizes | {"residual": 3}).items()]).map(dict)
)


@PROPERTY
@given(SIZES)
def test_sizes_become_slices_in_their_order_that_cover_everything(sizes):
    layout = FactorLayout.from_sizes(sizes)
    assert layout.names == tuple(sizes)
    assert layout.size == sum(sizes.values())
    assert [layout.size_of(name) for name in layout.names] == list(sizes.values())
    masks = np.array([layout.mask([name]) for name in layout.names])
    assert masks.sum(axis=0).tolist() == [1] * layout.size
    for name, mask in zip(layout.names, masks, strict=True):
        assert name in layout
        assert mask[layout.slice(name)].all()
    assert layout.mask(layout.names[::2]).tolist() == masks[::2].any(axis=0).tolist()


@PROPERTY
@given(SIZES, st.randoms(use_true_random=False))
def test_slices_may_be_given_in_any_order(sizes, random):
    ordered = FactorLayout.from_sizes(sizes)
    mixed = list(ordered)
    random.shuffle(mixed)
    layout = FactorLayout(tuple(mixed), ordered.size)
    assert all(layout.slice(name) == ordered.slice(name) for name in sizes)
    assert layout.names == tuple(part.name for part in mixed)


def test_an_unknown_factor_is_a_key_error():
    layout = FactorLayout((FactorSlice(name="residual", start=0, size=2),), 2)
    assert "digit" not in layout
    with pytest.raises(KeyError, match="digit"):
        layout.slice("digit")
    with pytest.raises(KeyError, match="digit"):
        layout.size_of("digit")


@PROPERTY
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20, unique=True), st.floats(-2e6, 2e6))
def test_a_quantile_is_the_share_of_less_likely_values(values, asked):
    values = sorted(values)
    probabilities = tuple(np.linspace(0, 1, len(values)).tolist())
    quantiles = LogLikelihoodQuantiles(probabilities=probabilities, values=tuple(values))
    (found,) = quantiles.quantile(np.array([asked]))
    below = sum(value < asked for value in values)
    assert max(0, below - 1) / (len(values) - 1) - 1e-9 <= found <= min(1, below / (len(values) - 1)) + 1e-9
    np.testing.assert_allclose(quantiles.quantile(np.array(values)), probabilities, atol=1e-12)
