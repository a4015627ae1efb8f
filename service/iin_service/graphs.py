"""The graphs of bundles behind their queues: batches, bounds, and who is to blame for an overflow."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
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
# What a call can ask for in one go, beside each graph as the bundle has it. A row is one queue, so calls with images
# and calls with latents do not share a batch of the transform; most send images.
GRAPHS_IN_A_ROW: tuple[tuple[str, ...], ...] = (("encoder", "transform"), ("transform",), ("inverse", "decoder"))


CODECS = 2  # threads that decode, each a picture of 325 MiB at most (`images.MAX_PIXELS`); that encode, at least


class Codec:
    """Threads for pictures alone, which are not freed while one is at work for a call that was given up."""

    def __init__(self, name: str, threads: int) -> None:
        """`name` is that of the threads."""
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = asyncio.Semaphore(threads)

    async def __call__(self, work: Callable[[], T]) -> T:
        """What `work` gives in a thread. It waits for one here: what waits in an executor stays when its call goes."""
        await self._free.acquire()
        job = asyncio.get_running_loop().run_in_executor(self._executor, work)
        job.add_done_callback(self._leave)
        return await asyncio.shield(job)

    def _leave(self, job: asyncio.Future[Any]) -> None:
        self._free.release()
        job.exception()  # looked at: asyncio would log the mistake of a call that was given up


class Compute:
    """What the bundles of a replica share; also one that goes, while calls that began on it end.

    The graphs that calls need run in one slot and one thread: the number of cores a graph uses is the sessions'
    business, and the event loop stays free. The check of a new bundle, or of one in doubt, runs beside them.
    """

    def __init__(self, limits: Limits | None = None, recorder: Recorder | None = None, *, threads: int = 1) -> None:
        """Nothing is under way; the replica has so many `threads`."""
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
    async def admitted(self, items: int, *, patient: bool) -> AsyncIterator[None]:
        """Count a call's items as under way in the replica; a lone call is always admitted.

        It is entered before the first of them is read and left when the answer is built, so it bounds what is in
        memory, and every queue: an item waits for at most one stage at a time. A call that is `patient` waits for
        room, after those that waited before, and leaves half of it to those that are not; it holds no items that
        were admitted before.

        Raises:
            Overloaded: where there is no room for a call that is not patient.

        """
        most = self.limits.max_queued_items
        if patient:
            async with self._turn:
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

        def stage(runs: dict[str, Run]) -> Stage:
            return Stage(
                runs,
                slot=compute.slot,
                executor=compute.executor,
                max_batch_size=compute.limits.max_batch_size,
                recorder=compute.recorder,
            )

        plain: dict[str, Run] = {role: partial(run, role) for role in manifest.graphs}
        scored = plain | {"transform": _scored(plain["transform"], manifest.log_likelihood_quantiles)}
        rows = [row for row in GRAPHS_IN_A_ROW if all(role in scored for role in row)]
        self._stages: dict[str | tuple[str, ...], Stage] = {role: stage({role: run}) for role, run in plain.items()}
        self._stages |= {row: stage({role: scored[role] for role in row}) for row in rows}

    def __contains__(self, row: str | tuple[str, ...]) -> bool:
        """Whether the bundle has all graphs of a row, or the graph of a role."""
        return row in self._stages

    async def run(
        self, row: str | tuple[str, ...], items: Array, trace: Trace, field_of: Callable[[int], str]
    ) -> list[Outputs]:
        """The outputs of each graph of a row, or of the one graph of a role as the bundle has it.

        In a row the transform gives log-likelihoods and their quantiles in place of the log-determinants. `field_of`
        names the item that a row of the arrays stands for.
        """
        stage = self._stages[row]
        outputs, passes = await stage(items)
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


def _scored(transform: Run, quantiles: LogLikelihoodQuantiles) -> Run:
    """`transform` with log-likelihoods and their quantiles in place of the log-determinants."""

    def run(latents: Array) -> Outputs:
        factors, log_dets = transform(latents)
        return factors, *likelihoods(factors, log_dets, quantiles)

    return run


def likelihoods(
    factors: Array, log_dets: Array, quantiles: LogLikelihoodQuantiles
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-likelihood, in nats, and its quantile for each of `factors`, `(n, D)`, with `log_dets`, `(n,)`."""
    wide = factors.astype(np.float64)
    with np.errstate(invalid="ignore"):  # an overflow is refused afterwards, to its own caller alone
        log_likelihoods = -0.5 * (np.einsum("nd,nd->n", wide, wide) + wide.shape[1] * LOG_2PI) + log_dets
    return log_likelihoods, quantiles.quantile(log_likelihoods)
