"""Work-conserving batching: a free stage takes everything that waits, up to its limit."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iin_service.errors import Overloaded

__all__ = ["Array", "Pass", "Stage"]

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Pass:
    """One pass of some items through a stage."""

    stage: str
    """Name of the stage."""
    queue_seconds: float
    """Time from submission to the start of the batch."""
    compute_seconds: float
    """Time that the whole batch took."""
    batch_size: int
    """Items in the batch, those of other calls included."""


@dataclass(eq=False)
class _Waiting:
    items: Array
    submitted: float
    done: asyncio.Future[tuple[tuple[Array, ...], Pass]]


class Stage:
    """One graph behind a queue.

    All stages of a replica share one compute slot: a batch is put together at the moment the slot
    is free, so a lone caller never waits for company and a crowd is served in the largest batches
    that fit. Callers that gave up (cancelled, or past their deadline) are dropped from the queue
    before they cost anything.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Array], tuple[Array, ...]],
        *,
        slot: asyncio.Semaphore,
        executor: Executor,
        max_batch_size: int,
        max_queued_items: int,
    ) -> None:
        """`run` maps `(n, ...)` to outputs of n rows each; it is called in `executor`, under `slot`."""
        self.name = name
        self.max_batch_size = max_batch_size
        self.max_queued_items = max_queued_items
        self._run = run
        self._slot = slot
        self._executor = executor
        self._waiting: deque[_Waiting] = deque()
        self._queued_items = 0
        self._drain: asyncio.Task[None] | None = None

    @property
    def queued_items(self) -> int:
        """Items that wait now."""
        return self._queued_items

    async def __call__(self, items: Array) -> tuple[tuple[Array, ...], list[Pass]]:
        """Outputs for `items`, `(n, ...)` with n >= 1, in order, and how they came about.

        Raises:
            Overloaded: where the queue would grow past `max_queued_items`.

        """
        if self._queued_items and self._queued_items + len(items) > self.max_queued_items:
            raise Overloaded(
                f"{self.name}: {self._queued_items} items wait and at most {self.max_queued_items} may; retry later"
            )
        loop = asyncio.get_running_loop()
        now = time.perf_counter()
        parts = [
            _Waiting(items[start : start + self.max_batch_size], now, loop.create_future())
            for start in range(0, len(items), self.max_batch_size)
        ]
        self._waiting.extend(parts)
        self._queued_items += len(items)
        if self._drain is None:
            self._drain = loop.create_task(self._work())
        try:
            if len(parts) == 1:
                outputs, only = await parts[0].done
                return outputs, [only]
            finished = await asyncio.gather(*(part.done for part in parts))
        except asyncio.CancelledError:
            self._abandon(parts)
            raise
        columns = zip(*(outputs for outputs, _ in finished), strict=True)
        return tuple(np.concatenate(column) for column in columns), [one for _, one in finished]

    def _abandon(self, parts: list[_Waiting]) -> None:
        """Take back what has not been started."""
        for part in parts:
            part.done.cancel()
            with contextlib.suppress(ValueError):  # already in a batch
                self._waiting.remove(part)
                self._queued_items -= len(part.items)

    def _take(self) -> list[_Waiting]:
        """The next batch: in order of arrival, up to the limit."""
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and size + len(self._waiting[0].items) <= self.max_batch_size:
            part = self._waiting.popleft()
            size += len(part.items)
            batch.append(part)
        self._queued_items -= size
        return batch

    async def _work(self) -> None:
        """Run batches until nothing waits."""
        while self._waiting:
            async with self._slot:
                if batch := self._take():
                    await self._run_batch(batch)
        self._drain = None

    async def _run_batch(self, batch: list[_Waiting]) -> None:
        items = batch[0].items if len(batch) == 1 else np.concatenate([part.items for part in batch])
        started = time.perf_counter()
        try:
            outputs = await asyncio.get_running_loop().run_in_executor(self._executor, self._run, items)
        except Exception as error:
            if len(batch) > 1:  # one caller's trouble must not be the others'
                for part in batch:
                    await self._run_batch([part])
            elif not batch[0].done.done():
                batch[0].done.set_exception(error)
            return
        took = time.perf_counter() - started
        position = 0
        for part in batch:
            rows = slice(position, position + len(part.items))
            position = rows.stop
            if not part.done.done():
                record = Pass(self.name, started - part.submitted, took, len(items))
                part.done.set_result((tuple(output[rows] for output in outputs), record))
