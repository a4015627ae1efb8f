"""Batches by number of the step, prepared ahead by worker processes."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

__all__ = ["Batches"]

AHEAD = 4  # batches that every worker prepares
Batch = TypeVar("Batch")


class _Steps(Dataset[Batch]):
    def __init__(self, draw: Callable[[int], Batch]) -> None:
        self._draw = draw

    def __getitem__(self, step: int) -> Batch:
        return self._draw(step)


class Batches(Generic[Batch]):
    """The batch of every step from the first one asked for; each is a function of its step, whoever prepares it."""

    def __init__(self, draw: Callable[[int], Batch], steps: int, workers: int) -> None:
        """`draw` makes the batch of a step, of `steps` in all; without `workers` when it is asked for."""
        self._draw, self._steps, self._workers = draw, steps, workers
        self._ahead: Iterator[Batch] | None = None

    def __call__(self, step: int) -> Batch:
        """The batch of `step`; the steps asked for follow each other."""
        if not self._workers:
            return self._draw(step)
        if self._ahead is None:
            loader = DataLoader(
                _Steps(self._draw),
                batch_size=None,
                sampler=range(step, self._steps),
                num_workers=self._workers,
                prefetch_factor=AHEAD,
                multiprocessing_context="fork",  # what draws need not be pickled
            )
            self._ahead = iter(loader)
        return next(self._ahead)
