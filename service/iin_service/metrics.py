"""The service's metrics, exported for Prometheus by Ray's agent of each node (as `ray_iin_...`).

Ray passes on the buckets of a histogram only: counts and quantiles are right, sums are made of the buckets' middles.
"""

import asyncio

from numpy.typing import NDArray
from ray.serve.metrics import Counter, Gauge, Histogram

from iin_service.recording import Recorder

__all__ = ["Metrics"]

SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]
ITEMS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
GAUGE_SECONDS = 0.5  # between two records of the gauges
MOST_LIKELIHOODS = 16  # of a call: a record of Ray's takes 5 us
QUANTILES = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99]


class Metrics(Recorder):
    """A recorder for Prometheus. Ray adds the tags deployment, replica and application to each metric.

    Create it inside a replica, once a process.
    """

    def __init__(self) -> None:
        self.doubtful = False
        """Whether a graph has raised since this was last set to False."""
        self._calls = Counter(
            "iin_requests",
            "Calls, messages of request streams, and such streams refused, given up or broken, by RPC and status.",
            ("rpc", "code"),
        )
        self._seconds = Histogram(
            "iin_request_seconds", "Time from arrival in the replica to the answer.", SECONDS, ("rpc",)
        )
        self._queue = Histogram(
            "iin_stage_queue_seconds", "Time that the oldest item of a batch had waited.", SECONDS, ("stage",)
        )
        self._compute = Histogram(
            "iin_stage_compute_seconds", "Time that a batch took in a graph.", SECONDS, ("stage",)
        )
        self._batch = Histogram("iin_stage_batch_items", "Items in a batch.", ITEMS, ("stage",))
        self._under_way = Gauge("iin_items_under_way", "Items of all calls under way in the replica.")
        self._waiting = Gauge("iin_stage_waiting_items", "Items that wait for a stage as a batch ends.", ("stage",))
        self._quantile = Histogram(
            "iin_log_likelihood_quantile",
            "Share of held-out images that are less likely than an interpreted item; uniform without drift.",
            QUANTILES,
        )
        self._refused = Gauge("iin_bundle_refused", "1 where an older bundle is served: the new one was refused.")
        self._unreadable = Counter("iin_image_failures", "Encoded images that were refused.")
        self._items, self._items_waiting, self._is_refused = 0, dict[str, int](), False
        """Values of the gauges."""

    async def keep_gauges(self) -> None:
        """Record the gauges again and again, without end: Ray drops one that is not set within two of its reports."""
        while True:
            self._under_way.set(self._items, {})
            for stage, items in self._items_waiting.items():
                self._waiting.set(items, {"stage": stage})
            self._refused.set(float(self._is_refused), {})
            await asyncio.sleep(GAUGE_SECONDS)

    def bundle_refused(self, refused: bool) -> None:
        """Whether the replica serves an older bundle than the one that it was last given."""
        self._is_refused = refused

    def call(self, rpc: str, code: str, seconds: float) -> None:
        self._calls.inc(tags={"rpc": rpc, "code": code})
        self._seconds.observe(seconds, tags={"rpc": rpc})

    def batch(self, stage: str, items: int, queue_seconds: float, compute_seconds: float) -> None:
        tags = {"stage": stage}
        self._queue.observe(queue_seconds, tags)
        self._compute.observe(compute_seconds, tags)
        self._batch.observe(items, tags)

    def batch_failed(self) -> None:
        self.doubtful = True

    def under_way(self, items: int) -> None:
        self._items = items

    def waiting(self, stage: str, change: int) -> None:
        """Called in the event loop."""
        self._items_waiting[stage] = self._items_waiting.get(stage, 0) + change

    def likelihoods(self, quantiles: NDArray) -> None:  # type: ignore[type-arg]
        """Of a large call, evenly spaced items are recorded."""
        for quantile in quantiles[:: -(-len(quantiles) // MOST_LIKELIHOODS) or 1].tolist():
            self._quantile.observe(quantile, {})

    def unreadable_image(self) -> None:
        self._unreadable.inc(tags={})
