"""Exact negative log-likelihoods of factors, alone and in pairs that share some of them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["factor_nll", "pair_nll"]

LOG_2PI = math.log(2 * math.pi)


def factor_nll(factors: Tensor, log_abs_det: Tensor) -> Tensor:
    """Negative log-likelihood of latents under the prior: the unsupervised loss.

    `-log N(T(z); 0, I) - log|det T'(z)|` per row, `(N,)` in nats, constants included.
    `factors` is T(z), `(N, D)`; `log_abs_det` is `(N,)`.
    Source: Esser, Rombach, Ommer (CVPR 2020), eq. 5 with the sign that bounds it from below.
    """
    return 0.5 * (factors.square() + LOG_2PI).sum(dim=1) - log_abs_det


def pair_nll(
    factors_a: Tensor,
    factors_b: Tensor,
    log_abs_det_a: Tensor,
    log_abs_det_b: Tensor,
    *,
    sizes: Sequence[int],
    shared: Tensor,
    similarity: Tensor,
) -> Tensor:
    """Negative log-likelihood of pairs that share a set of factors, `(N,)` in nats.

    The first image of a pair follows the prior. In the second every shared factor F follows
    `N(similarity * a_F, (1 - similarity^2) I)`, which leaves its marginal N(0, I), and every other
    factor is independent of the first image.

    Args:
        factors_a, factors_b: T(z) of the two images, `(N, D)`.
        log_abs_det_a, log_abs_det_b: log-determinants, `(N,)` in nats.
        sizes: sizes of the K factors in their order, residual included; they sum to D.
        shared: boolean `(N, K)`, true where the pair shares the factor; any set is allowed.
        similarity: correlation of shared factors in [0, 1), `(N,)`; the reference uses 0.975.

    Source: Esser, Rombach, Ommer (CVPR 2020), eqs. 6 to 9, with variance 1 - sigma^2 as in the
    released code, and constants included so that values are true densities.

    """
    repeats = torch.tensor(list(sizes), device=shared.device)
    correlation = shared.repeat_interleave(repeats, dim=1, output_size=factors_a.shape[1]) * similarity[:, None]
    variance = 1 - correlation.square()
    mismatch = (factors_b - correlation * factors_a).square() / variance
    nll_b = 0.5 * (mismatch + variance.log() + LOG_2PI).sum(dim=1) - log_abs_det_b
    return factor_nll(factors_a, log_abs_det_a) + nll_b
