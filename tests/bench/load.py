"""Closed-loop load: a number of callers, each sending its next call when the one before was answered.

Runs in a process of its own (`start_worker`, then `measure` as often as wanted). Requests and responses stay
bytes and all callers share one channel, so that the client costs little beside the server that it measures.
"""

import asyncio
import itertools
import math
import signal
import time
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import numpy as np
import psutil

__all__ = ["Load", "Result", "measure", "run", "start_worker"]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
CALL_SECONDS = 60.0  # deadline of a call
WARM_UP_SHARE, WARM_UP_SECONDS = 0.25, 0.3  # of the measured time, but no longer than this
MOST_ERRORS = 100  # then the measurement ends early


@dataclass(frozen=True, kw_only=True)
class Load:
    """What to send."""

    address: str
    """`host:port`."""
    method: str
    """Full name of the RPC, as in `/package.Service/Method`."""
    streams: bool
    """Whether the response is a stream; a call then ends with its last message."""
    requests: tuple[bytes, ...]
    """Serialised requests; every caller goes round them, each from another start."""
    callers: int
    """Calls under way at any time."""
    seconds: float
    """How long to measure."""
    pid: int
    """Process that serves the calls; what it computes is measured."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was measured."""

    calls: int
    """Calls answered in the measured time."""
    seconds: float
    """The measured time."""
    p50_ms: float
    """Median latency of these calls, milliseconds."""
    p99_ms: float
    """Latency that 99 of 100 of these calls stay within, milliseconds."""
    cpu_ms: float
    """CPU time of the serving process in the measured time by these calls, milliseconds."""
    errors: dict[str, int]
    """Status of each failed call, warm-up included, to how many there were."""

    @property
    def throughput(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds if self.seconds else 0.0


@dataclass
class _Window:
    """The measured time: from every caller's first answer on, until each could be answered once more."""

    load: Load
    started: float = field(default_factory=time.perf_counter)
    answered: set[int] = field(default_factory=set)
    begun: float | None = None
    ended: float | None = None
    cpu: float = 0.0
    """CPU time of the serving process in the measured time, seconds."""
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def succeeded(self, caller: int, began: float) -> None:
        now = time.perf_counter()
        if self.ended is not None:
            return
        if self.begun is None:
            self._warm_up(caller, now)
            return
        self.latencies.append(now - began)
        if now - self.begun >= self.load.seconds and len(self.latencies) >= self.load.callers:
            self._end(now)

    def failed(self, caller: int, error: grpc.aio.AioRpcError) -> None:
        self.errors[f"{error.code().name}: {error.details()}"] += 1
        if self.begun is None:
            self._warm_up(caller, time.perf_counter())
        if self.errors.total() >= MOST_ERRORS:
            self._end(time.perf_counter())

    def _warm_up(self, caller: int, now: float) -> None:
        self.answered.add(caller)
        least = min(WARM_UP_SECONDS, WARM_UP_SHARE * self.load.seconds)
        if len(self.answered) == self.load.callers and now - self.started >= least:
            self.begun, self.cpu = now, -self._cpu_seconds()

    def _end(self, now: float) -> None:
        self.ended = now
        self.cpu += self._cpu_seconds()

    def _cpu_seconds(self) -> float:
        times = psutil.Process(self.load.pid).cpu_times()
        return times.user + times.system


def start_worker() -> None:
    """Prepare the process; the one that started it decides when it ends."""
    global _runner
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _runner = asyncio.Runner()


def measure(load: Load) -> Result:
    """Send `load`; calls under way at the end are waited for, so that the server is idle afterwards."""
    return run(_measure(load))


def run(measuring: Coroutine[Any, Any, Result]) -> Result:
    """Run a measurement in the process's one event loop."""
    return _runner.run(measuring)


async def _measure(load: Load) -> Result:
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
    async with grpc.aio.insecure_channel(load.address, options=options) as channel:
        await asyncio.wait_for(channel.channel_ready(), CALL_SECONDS)
        window = _Window(load)
        await asyncio.gather(*(_caller(index, channel, window) for index in range(load.callers)))
    latencies = 1e3 * np.array(window.latencies or [np.nan])
    p50, p99 = np.percentile(latencies, [50, 99])
    return Result(
        calls=len(window.latencies),
        seconds=(window.ended or 0.0) - (window.begun or window.started),
        p50_ms=float(p50),
        p99_ms=float(p99),
        cpu_ms=1e3 * window.cpu / len(window.latencies) if window.latencies else math.nan,
        errors=dict(window.errors),
    )


async def _caller(index: int, channel: grpc.aio.Channel, window: _Window) -> None:
    load = window.load
    unary, stream = channel.unary_unary(load.method), channel.unary_stream(load.method)
    start = index % len(load.requests)
    for request in itertools.cycle(load.requests[start:] + load.requests[:start]):
        began = time.perf_counter()
        try:
            if load.streams:
                await _drained(stream(request, timeout=CALL_SECONDS))
            else:
                await _answered(unary(request, timeout=CALL_SECONDS))
        except grpc.aio.AioRpcError as error:
            window.failed(index, error)
        else:
            window.succeeded(index, began)
        if window.ended is not None:
            return


async def _answered(call: Awaitable[bytes]) -> None:
    if not await call:
        raise RuntimeError("expected a response, got an empty message")


async def _drained(call: AsyncIterable[bytes]) -> None:
    if not sum([len(part) async for part in call]):
        raise RuntimeError("expected a stream of responses, got no bytes")
