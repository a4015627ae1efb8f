"""Which images the pairs of a source can be of."""

from collections.abc import Iterable

from torch import Tensor

from iin_training.data.digests import knows
from iin_training.data.images import Images
from iin_training.pairs.base import PairSource

__all__ = ["drawable"]


def drawable(source: PairSource) -> Iterable[tuple[Images, Tensor]]:
    """Sets of images, each with the numbers `(n,)` of those that pairs can be of; none where `source` does not say."""
    return source.drawable() if knows(source, "drawable", "draw") else ()  # type: ignore[attr-defined]
