"""Saying which setting decides how many pictures are held out."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["naming_held_out"]


@contextmanager
def naming_held_out(count: int) -> Iterator[None]:
    """Make pairs of `count` held-out pictures in this block; what they are too few for is a `ValueError` of its own."""
    try:
        yield
    except ValueError as error:
        reason = str(error).partition("; ")[0]  # its remedies are for labels of a user's own
        raise ValueError(
            f"data.held_out: expected enough pictures for pairs of them, got {count} ({reason}); raise it, or give a "
            "larger held-out set where the data has one of its own"
        ) from error
