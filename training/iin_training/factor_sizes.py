"""How many dimensions each concept deserves, estimated from latents of pairs."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["allot_sizes", "paper_scores", "reference_scores"]

Pairs = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Per concept the latents of the first and of the second images of pairs that share it, each `(N, D)`."""


def _flat64(values: NDArray[np.float32]) -> NDArray[np.float64]:
    return values.reshape(len(values), -1).astype(np.float64)


def reference_scores(pairs: Pairs) -> dict[str, float]:
    """Share of the latents' variance that a concept explains, as the authors' code measures it.

    `s_F = sum_i mean[(a - mu_F)_i (b - mu_F)_i] / sum_i var_i`, with mu_F the mean over the pairs of F
    and var over all latents given; the residual scores 1.

    Args:
        pairs: per concept the latents of the first and second images, each `(N, D)`.

    Returns:
        The score of `residual` (first) and of each concept, dimensionless, at most about 1.

    Raises:
        ValueError: where all latents are one.

    Source: the code of Esser, Rombach, Ommer (CVPR 2020), github.com/CompVis/iin, which differs from eq. 10 of the
    paper, see `paper_scores`.

    """
    pooled = np.concatenate([_flat64(side) for pair in pairs.values() for side in pair])
    total = pooled.var(axis=0).sum()
    if not total > 0:
        raise ValueError("pairs: expected latents that vary, got constant ones; check the encoder")
    scores = {"residual": 1.0}
    for name, (first, second) in pairs.items():
        a, b = _flat64(first), _flat64(second)
        mean = np.concatenate([a, b]).mean(axis=0)
        scores[name] = float(((a - mean) * (b - mean)).mean(axis=0).sum() / total)
    return scores


def paper_scores(pairs: Pairs) -> dict[str, float]:
    """Sum over dimensions of the correlation between paired latents, as the paper prints it.

    `s_F = sum_i corr(E(x_a)_i, E(x_b)_i)` and `s_residual = D`. Constant dimensions count as
    uncorrelated. Source: Esser, Rombach, Ommer (CVPR 2020), eq. 10. Because the scores grow
    with D, their softmax tends to give nearly everything to the residual.
    """
    size = _flat64(next(iter(pairs.values()))[0]).shape[1]
    scores = {"residual": float(size)}
    for name, (first, second) in pairs.items():
        a, b = _flat64(first), _flat64(second)
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
        products = (a * b).sum(axis=0)
        scores[name] = float(np.divide(products, scale, out=np.zeros(size), where=scale > 0).sum())
    return scores


def allot_sizes(scores: Mapping[str, float], size: int) -> dict[str, int]:
    """Split `size` dimensions by the softmax of the scores, rounded down; the residual takes the rest.

    Source: Esser, Rombach, Ommer (CVPR 2020), section 3.2, estimating dimensionality of factors, and its code.

    Args:
        scores: dimensionless, of `residual` and of each concept.
        size: D.

    Returns:
        Dimensions of each, at least 1, in the order of `scores`; they sum to `size`.

    Raises:
        ValueError: if a concept would get no dimension at all.

    """
    top = max(scores.values())
    weights = {name: math.exp(score - top) for name, score in scores.items()}
    total = sum(weights.values())
    sizes = {name: int(weight / total * size) for name, weight in weights.items()}
    empty = [name for name, count in sizes.items() if count == 0 and name != "residual"]
    if empty:
        shown = {name: round(score, 3) for name, score in scores.items()}
        raise ValueError(
            f"factor sizes: {', '.join(empty)} would get 0 of {size} dimensions (scores {shown}); "
            "set the sizes by hand (transform.sizes) or take a model with larger latents; where the estimator is "
            "paper, reference gives concepts more"
        )
    sizes["residual"] = size - sum(n for name, n in sizes.items() if name != "residual")
    return sizes
