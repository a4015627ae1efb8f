"""Work-conserving batching: a free stage takes everything that waits, up to its limit."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from iin_service.recording import Recorder

__all__ = ["Array", "Outputs", "Pass", "Run", "Stage", "copied"]

Array = NDArray[np.float32]
Outputs = tuple[NDArray[Any], ...]
Run = Callable[[Array], Outputs]
T = TypeVar("T")
QUIET_TURNS = 4  # turns of the event loop without an arrival before a batch is taken; fewer gave smaller batches
BYTES_COPIED_AT_ONCE = 1 << 20  # by the event loop itself: about a millisecond at most


class Pass(NamedTuple):
    """One pass of some items through a graph."""

    graph: str
    """Name of the graph."""
    queue_seconds: float
    """Time from submission to the start of the batch; 0 for the second graph of a row."""
    compute_seconds: float
    """Time that the whole batch took."""
    batch_size: int
    """Items in the batch, those of other calls included."""
    finite: bool
    """Whether every output of the whole batch is finite."""


@dataclass(eq=False, slots=True)
class _Waiting:
    items: Array
    submitted: float
    done: asyncio.Future[tuple[list[Outputs], list[Pass]]]
    patient: bool
    following: "_Waiting | None" = None
    """The next part of the same call; its waiting is timed from the end of this one."""


class Stage:
    """One graph, or several in a row, behind a queue.

    Each graph in a row takes the first output of the one before it, in the same thread: with many callers, returning
    to the event loop in between costs as much as a small graph.

    All stages of a replica share one compute slot. A batch is put together when the slot is free, so a lone caller
    never waits for company, and many callers are served in the largest batches that fit. Items go in order of arrival,
    but every second batch takes those of patient calls last: a single call does not wait for all streams, and no stream
    waits for ever. Calls that were cancelled or are past their deadline leave the queue before they cost anything.
    """

    def __init__(
        self,
        graphs: Mapping[str, Run],
        *,
        slot: asyncio.Semaphore,
        executor: Executor,
        max_batch_size: int,
        recorder: Recorder | None = None,
    ) -> None:
        """`graphs`, by name and in order, map `(n, ...)` to outputs of n rows; they run in `executor`, under `slot`."""
        self.graphs = dict(graphs)
        self.max_batch_size = max_batch_size
        self._slot = slot
        self._executor = executor
        self._recorder = recorder or Recorder()
        self._name = next(iter(self.graphs))
        self._waiting: list[_Waiting] = []
        """In order of arrival."""
        self._patient_last = False
        """Whether the batch before took patient calls last."""
        self._told = 0
        """Items that waited when the recorder was last told."""
        self._drain: asyncio.Task[None] | None = None

    @property
    def queued_items(self) -> int:
        """Items that wait now."""
        return sum(len(part.items) for part in self._waiting if not part.done.done())

    async def __call__(self, items: Array, *, patient: bool = False) -> tuple[list[Outputs], list[Pass]]:
        """Each graph's outputs for `items`, `(n, ...)` with n >= 1, in order, and the passes that made them.

        Other calls may overtake a `patient` one.
        """
        loop = asyncio.get_running_loop()
        now = time.perf_counter()
        parts = [
            _Waiting(items[start : start + self.max_batch_size], now, loop.create_future(), patient)
            for start in range(0, len(items), self.max_batch_size)
        ]
        for part, following in pairwise(parts):
            part.following = following
        self._waiting.extend(parts)
        if self._drain is None:
            self._drain = loop.create_task(self._work())
        try:
            if len(parts) == 1:
                return await parts[0].done
            finished = await asyncio.gather(*(part.done for part in parts))
        except BaseException:
            for part in parts:  # take back what has not been started
                part.done.cancel()
                with contextlib.suppress(ValueError):  # it is in a batch
                    self._waiting.remove(part)
            raise
        parted = [outputs for outputs, _ in finished]
        size = sum(output.nbytes for outputs in parted for graph in outputs for output in graph)
        return await copied(size, partial(_joined, parted)), [one for _, passes in finished for one in passes]

    def _take(self) -> list[_Waiting]:
        """The next batch, up to the limit."""
        self._patient_last = not self._patient_last
        taken: set[_Waiting] = set()
        batch: list[_Waiting] = []
        size = 0
        for part in sorted(self._waiting, key=attrgetter("patient")) if self._patient_last else self._waiting:
            if size + len(part.items) > self.max_batch_size:
                break
            taken.add(part)
            if not part.done.done():  # else its caller left in this turn of the event loop
                size += len(part.items)
                batch.append(part)
        self._waiting = [part for part in self._waiting if part not in taken]
        return batch

    async def _work(self) -> None:
        """Run batches until nothing waits."""
        try:
            while self._waiting:
                async with self._slot:
                    await self._settle()
                    if batch := self._take():
                        await self._run_batch(batch)
                waiting = self.queued_items  # 0 at last
                self._recorder.waiting(self._name, waiting - self._told)
                self._told = waiting
        finally:
            self._drain = None

    async def _settle(self) -> None:
        """Wait until no more items arrive: some 10 us where none do.

        Calls that arrive together reach the queue over several turns of the event loop. With many callers, a batch
        taken in the first turn is a third smaller (tests/bench).
        """
        waiting, unchanged = len(self._waiting), 0
        while unchanged < QUIET_TURNS and waiting < self.max_batch_size:
            await asyncio.sleep(0)
            unchanged = unchanged + 1 if len(self._waiting) == waiting else 0
            waiting = len(self._waiting)

    async def _run_batch(self, batch: list[_Waiting]) -> None:
        started = time.perf_counter()
        try:
            items = batch[0].items if len(batch) == 1 else np.concatenate([part.items for part in batch])
            outputs, passes = await asyncio.get_running_loop().run_in_executor(self._executor, self._compute, items)
        except Exception as error:
            self._recorder.batch_failed()
            if len(batch) > 1:  # each by itself, so that only the calls at fault fail
                for part in batch:
                    if not part.done.done():
                        await self._run_batch([part])
            elif not batch[0].done.done():
                batch[0].done.set_exception(error)
            return
        waited = started - min(part.submitted for part in batch)
        for one in passes:
            self._recorder.batch(one.graph, one.batch_size, waited, one.compute_seconds)
            waited = 0.0  # the later graphs of a row
        position = 0
        for part in batch:
            rows = slice(position, position + len(part.items))
            position = rows.stop
            if not part.done.done():
                first = passes[0]._replace(queue_seconds=started - part.submitted)
                own = [tuple(output[rows] for output in graph) for graph in outputs]
                part.done.set_result((own, [first, *passes[1:]]))
            if part.following is not None:
                part.following.submitted = time.perf_counter()

    def _compute(self, items: Array) -> tuple[list[Outputs], list[Pass]]:
        """All graphs in a row on a batch."""
        outputs: list[Outputs] = []
        passes = []
        count = len(items)
        for name, run in self.graphs.items():
            started = time.perf_counter()
            outputs.append(run(items))
            items = outputs[-1][0]
            if any(len(output) != count for output in outputs[-1]):
                raise RuntimeError(f"{name}: expected {count} rows from the graph, got another number")
            finite = all(bool(np.isfinite(output).all()) for output in outputs[-1])  # once a batch, not once a call
            passes.append(Pass(name, 0.0, time.perf_counter() - started, count, finite))
        return outputs, passes


async def copied(size: int, copy: Callable[[], T]) -> T:
    """`copy()`, in a thread if its `size`, in bytes, would hold the event loop: 256 pictures may have 200 MB."""
    return copy() if size <= BYTES_COPIED_AT_ONCE else await asyncio.to_thread(copy)


def _joined(parts: list[list[Outputs]]) -> list[Outputs]:
    """Each graph's outputs for all parts of a call."""
    return [tuple(np.concatenate(column) for column in zip(*graph, strict=True)) for graph in zip(*parts, strict=True)]
