"""The graphs of bundles behind their queues: batches, bounds, and who is to blame for an overflow."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
from iin_bundle import Manifest
from numpy.typing import NDArray

from iin_service.errors import InvalidInput, Overloaded
from iin_service.items import Limits, Trace
from iin_service.recording import Recorder, Silent
from iin_service.stage import Array, Outputs, Run, Stage

__all__ = ["Codec", "Compute", "Graphs"]

T = TypeVar("T")
LOG_2PI = math.log(2 * math.pi)
# What a call can ask for in one go: the ways into the factors, out of them, and the head. A row is one queue, so
# calls with images and calls with latents do not share a batch of the transform; most send images.
GRAPHS_IN_A_ROW: tuple[tuple[str, ...], ...] = (
    ("encoder", "transform"),
    ("transform",),
    ("inverse", "decoder"),
    ("inverse",),
    ("head",),
)


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
        job.add_done_callback(lambda _: self._free.release())
        return await asyncio.shield(job)


class Compute:
    """What the bundles of a replica share; also one that goes, while calls that began on it end.

    The graphs that calls need run in one slot and one thread: the number of cores a graph uses is the sessions'
    business, and the event loop stays free. The check of a new bundle, or of one in doubt, runs beside them.
    """

    def __init__(self, limits: Limits | None = None, recorder: Recorder | None = None, *, threads: int = 1) -> None:
        """Nothing is under way; the replica has so many `threads`."""
        self.limits, self.recorder = limits or Limits(), recorder or Silent()
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
    """Runs rows of graphs of one bundle."""

    def __init__(self, manifest: Manifest, runner: Callable[[str], Run], compute: Compute) -> None:
        """`runner(role)` gives the function that runs a graph on a batch; all graphs of a replica share `compute`."""
        self._scorer = _Scorer(manifest)

        def stage(runs: dict[str, Run]) -> Stage:
            return Stage(
                runs,
                slot=compute.slot,
                executor=compute.executor,
                max_batch_size=compute.limits.max_batch_size,
                recorder=compute.recorder,
            )

        plain = {role: runner(role) for role in manifest.graphs}
        scored = plain | {"transform": self._scorer.scored(plain["transform"])}
        rows = [row for row in GRAPHS_IN_A_ROW if all(role in scored for role in row)]
        self._rows = {row: stage({role: scored[role] for role in row}) for row in rows}
        self._single = {role: stage({role: run}) for role, run in plain.items()}

    def likelihoods(self, factors: Array, log_dets: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log-likelihood, in nats, and its quantile for each of `factors`, `(n, D)`."""
        return self._scorer.likelihoods(factors, log_dets)

    def __contains__(self, row: tuple[str, ...]) -> bool:
        """Whether the bundle has all graphs of `row`."""
        return row in self._rows

    async def run(
        self, row: tuple[str, ...], items: Array, trace: Trace, field_of: Callable[[int], str]
    ) -> list[Outputs]:
        """The outputs of each graph of a row; `field_of` names the item that a row of the arrays stands for."""
        return await self._passed(self._rows[row], items, trace, field_of)

    async def run_alone(self, role: str, items: Array, trace: Trace, field: str) -> Outputs:
        """The outputs of one graph as the bundle has it."""
        (outputs,) = await self._passed(self._single[role], items, trace, lambda _: field)
        return outputs

    async def _passed(self, stage: Stage, items: Array, trace: Trace, field_of: Callable[[int], str]) -> list[Outputs]:
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


class _Scorer:
    """Likelihoods of one model. It holds no graph, so that the graphs go when their bundle does."""

    def __init__(self, manifest: Manifest) -> None:
        self._size, self._quantiles = manifest.size, manifest.log_likelihood_quantiles

    def scored(self, transform: Run) -> Run:
        """`transform` with log-likelihoods in nats and their quantiles in place of the log-determinants."""

        def run(latents: Array) -> Outputs:
            factors, log_dets = transform(latents)
            return factors, *self.likelihoods(factors, log_dets)

        return run

    def likelihoods(self, factors: Array, log_dets: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See `Graphs.likelihoods`."""
        wide = factors.astype(np.float64)
        with np.errstate(invalid="ignore"):  # an overflow is refused afterwards, to its own caller alone
            log_prior = -0.5 * (np.einsum("nd,nd->n", wide, wide) + self._size * LOG_2PI)
            log_likelihoods = log_prior + log_dets
        return log_likelihoods, self._quantiles.quantile(log_likelihoods)
