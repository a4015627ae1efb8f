"""The losses are exact densities, compared with scipy's multivariate normal."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from iin_training.losses import factor_nll, pair_nll
from scipy.stats import multivariate_normal

PROPERTY = settings(max_examples=25, deadline=None, derandomize=True)


@st.composite
def pair_batches(draw, max_similarity=0.99):
    """Sizes of factors, and rows of factor vectors with what each pair shares and how much."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    rows, total = draw(st.integers(1, 3)), sum(sizes)
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return {
        "sizes": sizes,
        "a": torch.from_numpy(2 * numbers.standard_normal((rows, total))),
        "b": torch.from_numpy(2 * numbers.standard_normal((rows, total))),
        "log_abs_det_a": torch.from_numpy(numbers.standard_normal(rows)),
        "log_abs_det_b": torch.from_numpy(numbers.standard_normal(rows)),
        "shared": torch.from_numpy(numbers.random((rows, len(sizes))) < 0.5),
        "similarity": torch.from_numpy(numbers.uniform(0, max_similarity, rows)),
    }


def loss(batch, **changed):
    batch = batch | changed
    return pair_nll(
        batch["a"],
        batch["b"],
        batch["log_abs_det_a"],
        batch["log_abs_det_b"],
        sizes=batch["sizes"],
        shared=batch["shared"],
        similarity=batch["similarity"],
    )


@PROPERTY
@given(pair_batches())
def test_factor_nll_is_the_density_of_a_standard_normal_carried_back(batch):
    found = factor_nll(batch["a"], batch["log_abs_det_a"])
    density = multivariate_normal(np.zeros(batch["a"].shape[1]))
    expected = [
        -density.logpdf(z) - log_abs_det
        for z, log_abs_det in zip(batch["a"].numpy(), batch["log_abs_det_a"].numpy(), strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-10)


@PROPERTY
@given(pair_batches())
def test_pair_nll_is_the_joint_density_of_both_images(batch):
    size, expected = sum(batch["sizes"]), []
    for row in range(len(batch["a"])):
        correlation = np.zeros(size)
        start = 0
        for factor, width in enumerate(batch["sizes"]):
            if batch["shared"][row, factor]:
                correlation[start : start + width] = float(batch["similarity"][row])
            start += width
        covariance = np.block([[np.eye(size), np.diag(correlation)], [np.diag(correlation), np.eye(size)]])
        both = np.concatenate([batch["a"][row].numpy(), batch["b"][row].numpy()])
        log_abs_det = float(batch["log_abs_det_a"][row] + batch["log_abs_det_b"][row])
        expected.append(-multivariate_normal(np.zeros(2 * size), covariance).logpdf(both) - log_abs_det)
    np.testing.assert_allclose(loss(batch).numpy(), expected, rtol=1e-8, atol=1e-8)


@PROPERTY
@given(pair_batches())
def test_the_order_of_the_two_images_does_not_matter(batch):
    exchanged = loss(
        batch,
        a=batch["b"],
        b=batch["a"],
        log_abs_det_a=batch["log_abs_det_b"],
        log_abs_det_b=batch["log_abs_det_a"],
    )
    np.testing.assert_allclose(exchanged.numpy(), loss(batch).numpy(), rtol=1e-8, atol=1e-8)


@PROPERTY
@given(pair_batches())
def test_a_similarity_of_zero_is_the_same_as_sharing_nothing(batch):
    unrelated = loss(batch, similarity=torch.zeros_like(batch["similarity"]))
    nothing_shared = loss(batch, shared=torch.zeros_like(batch["shared"]))
    separate = factor_nll(batch["a"], batch["log_abs_det_a"]) + factor_nll(batch["b"], batch["log_abs_det_b"])
    np.testing.assert_allclose(unrelated.numpy(), separate.numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(nothing_shared.numpy(), separate.numpy(), rtol=1e-12, atol=1e-12)


def test_the_second_image_alone_is_standard_normal_whatever_is_shared():
    """Integrating the joint density of one shared dimension over the first image leaves N(0, 1)."""
    grid = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None]
    for b in (-1.5, 0.0, 2.5):
        zeros = torch.zeros(len(grid), dtype=torch.float64)
        joint = pair_nll(
            grid,
            torch.full_like(grid, b),
            zeros,
            zeros,
            sizes=[1],
            shared=torch.ones(len(grid), 1, dtype=torch.bool),
            similarity=torch.full_like(zeros, 0.9),
        )
        marginal = torch.trapezoid((-joint).exp(), grid[:, 0])
        expected = multivariate_normal(0.0, 1.0).pdf(b)
        np.testing.assert_allclose(float(marginal), expected, rtol=1e-6)


def test_the_loss_keeps_the_precision_of_its_inputs():
    numbers = torch.randn(4, 2)
    found = pair_nll(
        numbers,
        numbers,
        numbers[:, 0],
        numbers[:, 1],
        sizes=[1, 1],
        shared=torch.tensor([[True, False]]).expand(4, -1),
        similarity=torch.full((4,), 0.975),
    )
    assert found.dtype == torch.float32
    assert found.shape == (4,)
    assert torch.isfinite(found).all()
