"""The graphs of bundles behind their queues: batches, bounds, and who is to blame for an overflow."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import numpy as np
from iin_bundle import LogLikelihoodQuantiles, Manifest
from numpy.typing import NDArray

from iin_service.errors import InvalidInput, Overloaded
from iin_service.items import Limits, Trace
from iin_service.recording import Recorder
from iin_service.stage import Array, Outputs, Run, Stage

__all__ = ["Codec", "Compute", "Graphs", "RunRole", "likelihoods"]

T = TypeVar("T")
RunRole = Callable[[str, Array], Outputs]
LOG_2PI = math.log(2 * math.pi)
# Graphs that run one after the other in one stage, beside each graph by itself. Each row has a queue of its own, so
# calls with images and calls with latents do not share a batch of the transform; most calls send images.
GRAPHS_IN_A_ROW: tuple[tuple[str, ...], ...] = (("encoder", "transform"), ("transform",), ("inverse", "decoder"))


CODECS = 2  # threads that decode, each with up to 325 MiB (`images.MAX_PIXELS`), and at least as many that encode


class Codec:
    """Threads that decode or encode pictures. One stays taken until its picture is done, even if the call is gone."""

    def __init__(self, name: str, threads: int) -> None:
        """So many `threads`, whose names begin with `name`."""
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = asyncio.Semaphore(threads)
        self._turn = asyncio.Lock()
        """Held by the patient call that waits for a thread: a call that is not waits behind that one alone."""

    async def __call__(self, work: Callable[[], T], *, patient: bool) -> T:
        """`work()` in a thread. It waits here for a free one: an executor would keep the work of calls that left."""
        async with self._turn if patient else nullcontext():
            await self._free.acquire()
        job = asyncio.get_running_loop().run_in_executor(self._executor, work)
        job.add_done_callback(self._leave)
        return await asyncio.shield(job)

    def _leave(self, job: asyncio.Future[Any]) -> None:
        self._free.release()
        job.exception()  # else asyncio would log the exception of a call that left


class Compute:
    """What all bundles of a replica share: also the one that was replaced, while calls that began on it end.

    The graphs of all calls run in one slot and one thread, so that the event loop stays free; how many cores a graph
    uses is the sessions' business. The golden check of a bundle runs beside them.
    """

    def __init__(self, limits: Limits | None = None, recorder: Recorder | None = None, *, threads: int = 1) -> None:
        """The replica has so many `threads`."""
        self.limits, self.recorder = limits or Limits(), recorder or Recorder()
        self.slot = asyncio.Semaphore(1)
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self.decode = Codec("decode", CODECS)
        self.encode = Codec("encode", max(CODECS, threads))
        self._items = 0
        self._left = asyncio.Event()
        """Set whenever items leave."""
        self._turn = asyncio.Lock()
        """Held by the patient call that waits for room: no other overtakes it, and items that leave wake it alone."""

    @asynccontextmanager
    async def admitted(self, items: int, *, patient: bool, turn: asyncio.Lock | None = None) -> AsyncIterator[None]:
        """Count a call's items as under way in the replica; a lone call is always admitted.

        Enter it before the first item is read and leave it when the answer is built: so it bounds the memory, and every
        queue, since an item waits for one stage at a time. A `patient` call waits for room, first come, first served,
        and leaves half of the room to the others; it must not hold items admitted before. Of those that share a `turn`,
        the messages of a stream, one waits among the calls, and the others behind it: 64 of them would fill the room
        before another call's next part.

        Raises:
            Overloaded: if there is no room for a call that is not patient.

        """
        most = self.limits.max_queued_items
        if patient:
            async with turn or nullcontext(), self._turn:
                while self._items and self._items + items > most // 2:
                    self._left.clear()
                    await self._left.wait()
        if self._items and self._items + items > most:
            raise Overloaded(f"{self._items} items are under way and at most {most} may be; retry later")
        self._count(items)
        try:
            yield
        finally:
            self._count(-items)
            self._left.set()

    def _count(self, items: int) -> None:
        self._items += items
        self.recorder.under_way(self._items)


class Graphs:
    """Runs graphs of one bundle, alone and in rows."""

    def __init__(self, manifest: Manifest, run: RunRole, compute: Compute) -> None:
        """`run` runs the graph of a role on a batch; all graphs of a replica share `compute`."""
        stage = partial(
            Stage,
            slot=compute.slot,
            executor=compute.executor,
            max_batch_size=compute.limits.max_batch_size,
            recorder=compute.recorder,
        )
        plain: dict[str, Run] = {role: partial(run, role) for role in manifest.graphs}

        def scored(latents: Array) -> Outputs:
            factors, log_dets = plain["transform"](latents)
            return factors, *likelihoods(factors, log_dets, manifest.log_likelihood_quantiles)

        in_a_row = plain | {"transform": scored}
        rows = [row for row in GRAPHS_IN_A_ROW if all(role in plain for role in row)]
        self._stages: dict[str | tuple[str, ...], Stage] = {role: stage({role: run}) for role, run in plain.items()}
        self._stages |= {row: stage({role: in_a_row[role] for role in row}) for row in rows}

    def __contains__(self, row: str | tuple[str, ...]) -> bool:
        """Whether the bundle has the graph of a role, or all graphs of a row."""
        return row in self._stages

    async def run(
        self, row: str | tuple[str, ...], items: Array, trace: Trace, field_of: Callable[[int], str]
    ) -> list[Outputs]:
        """The outputs of each graph of a row, or of the one graph of a role.

        In a row, and only there, the transform returns log-likelihoods and their quantiles in place of the
        log-determinants. `field_of` gives the path in the request of the item with an index.

        Raises:
            InvalidInput: where an item leads to values that are not finite.

        """
        stage = self._stages[row]
        outputs, passes = await stage(items, patient=trace.patient)
        trace.passes += passes
        if not all(one.finite for one in passes):  # somebody's in the batch
            for role, own in zip(stage.graphs, outputs, strict=True):
                broken = [~np.isfinite(output).reshape(len(items), -1).all(axis=1) for output in own]
                if (rows := np.flatnonzero(np.any(broken, axis=0))).size:
                    raise InvalidInput(
                        field_of(int(rows[0])),
                        "values that the model maps to finite ones",
                        f"an overflow in the {role}",
                        "use smaller values",
                    )
        return outputs


def likelihoods(
    factors: Array, log_dets: Array, quantiles: LogLikelihoodQuantiles
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-likelihood, in nats, and its quantile for each of `factors`, `(n, D)`, with `log_dets`, `(n,)`."""
    wide = factors.astype(np.float64)
    with np.errstate(invalid="ignore"):  # an overflow is refused afterwards, to its own caller alone
        log_likelihoods = -0.5 * (np.einsum("nd,nd->n", wide, wide) + wide.shape[1] * LOG_2PI) + log_dets
    return log_likelihoods, quantiles.quantile(log_likelihoods)
