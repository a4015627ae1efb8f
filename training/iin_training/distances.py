"""How far apart two sets of pictures are: the kernel distance and the Frechet distance of their features."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["frechet_distance", "kernel_distance"]

SUBSET = 1000  # rows of each set that are compared at a time
SUBSETS = 20
Array = NDArray[np.float64]


def kernel_distance(a: NDArray[Any], b: NDArray[Any], *, seed: int) -> float:
    """Squared maximum mean discrepancy with the kernel `(x . y / D + 1)^3`, unbiased: KID on features of any network.

    The mean over 20 random subsets of 1,000 rows of each set, drawn without replacement; over the sets as they are
    where neither has more rows. Around 0, and as often below, for two samples of one distribution.
    Source: Binkowski et al., Demystifying MMD GANs (ICLR 2018); Gretton et al., A kernel two-sample test
    (JMLR 2012), eq. 3.

    Args:
        a: finite features `(N, D)`, N >= 2, any unit.
        b: features `(M, D)` of the other set, M >= 2, in the same unit.
        seed: decides which rows are in a subset.

    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    if max(len(a), len(b)) <= SUBSET:
        return _squared_discrepancy(a, b)
    generator = np.random.default_rng(seed)

    def some(rows: Array) -> Array:
        return rows[generator.choice(len(rows), min(SUBSET, len(rows)), replace=False)]

    return float(np.mean([_squared_discrepancy(some(a), some(b)) for _ in range(SUBSETS)]))


def frechet_distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """`|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`, with C the covariances of the features.

    It is biased upwards, the more the fewer rows: compare only distances between sets of the same sizes, and with the
    one between two samples of what is real. It is not the FID, which is this distance on features of one particular
    Inception network.
    Source: Dowson, Landau (Journal of Multivariate Analysis, 1982); Heusel et al. (NeurIPS 2017), eq. 6.

    Args:
        a: finite features `(N, D)`, N >= 2, any unit.
        b: features `(M, D)` of the other set, M >= 2, in the same unit.

    Returns:
        At least 0, in the square of the features' unit.

    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    shift = a.mean(axis=0) - b.mean(axis=0)
    # C = X'X with X the centred rows / sqrt(N - 1). The eigenvalues of C_a C_b other than 0 are the squared singular
    # values of X_a X_b', so its root's trace is their sum: no root of a singular matrix, whatever the number of rows.
    a, b = _deviations(a), _deviations(b)
    overlap = np.linalg.svd(_compact(a) @ _compact(b).T, compute_uv=False).sum()
    return max(0.0, float(shift @ shift + np.square(a).sum() + np.square(b).sum() - 2 * overlap))


def _squared_discrepancy(a: Array, b: Array) -> float:
    """The unbiased estimate: no picture is compared with itself, therefore below 0 at times."""

    def kernel(rows: Array, others: Array) -> Array:
        values: Array = (rows @ others.T / rows.shape[1] + 1) ** 3
        return values

    def within(rows: Array) -> float:
        values = kernel(rows, rows)
        return float((values.sum() - np.trace(values)) / (len(rows) * (len(rows) - 1)))

    return within(a) + within(b) - 2 * float(kernel(a, b).mean())


def _deviations(rows: Array) -> Array:
    deviations: Array = (rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1)
    return deviations


def _compact(rows: Array) -> Array:
    """At most D rows with the same `X'X`: the triangle of a QR decomposition."""
    if len(rows) <= rows.shape[1]:
        return rows
    triangle: Array = np.linalg.qr(rows, mode="r")  # type: ignore[assignment]  # numpy's types miss this mode
    return triangle
