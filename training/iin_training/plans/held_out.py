"""Messages about held-out pictures: how many there are, copies among training pictures, too few for pairs."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from iin_training.data.images import ImageArray

__all__ = ["naming_held_out", "told_of_data"]


def told_of_data(name: str, images: NDArray[np.uint8], held_out: NDArray[np.uint8]) -> str:
    """How many pictures, `(N, H, W)` or `(N, H, W, 3)`, a data set has; how many held-out ones are in training too."""
    seen = set(ImageArray(images).contents)
    copies = sum(content in seen for content in ImageArray(held_out).contents)
    told = f"; {copies} of these are in training too: figures measured on them are too good" if copies else ""
    return f"data: {name}, {len(images)} for training, {len(held_out)} held out{told}"


@contextmanager
def naming_held_out(count: int) -> Iterator[None]:
    """Name `data.held_out` in a `ValueError` of this block, which makes pairs of `count` held-out pictures."""
    try:
        yield
    except ValueError as error:
        reason = str(error).partition("; ")[0]  # its remedies are for labels of a user's own
        raise ValueError(
            f"data.held_out: expected enough pictures for pairs of them, got {count} ({reason}); raise it, or give a "
            "larger held-out set where the data has one of its own"
        ) from error
