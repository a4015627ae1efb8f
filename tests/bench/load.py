"""Load: callers that each send their next call when the one before was answered, or calls at a given rate.

Runs in a process of its own (`start_worker`, then `measure` as often as wanted). Requests and responses stay
bytes and all calls share one channel, so that the client costs little beside the server that it measures.
"""

import asyncio
import contextlib
import itertools
import math
import signal
import time
from collections import Counter
from collections.abc import AsyncIterable, Awaitable
from dataclasses import dataclass

import grpc.aio
import numpy as np
import psutil

__all__ = ["Calls", "Load", "Result", "measure", "start_worker"]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
CALL_SECONDS = 60.0  # deadline of a call
WARM_UP_SHARE, WARM_UP_SECONDS = 0.25, 0.3  # of the measured time, but no longer than this
MOST_ERRORS = 100  # then the measurement ends early
_runner: asyncio.Runner  # of this process, once it is a worker


@dataclass(frozen=True, kw_only=True)
class Calls:
    """One kind of call and how often it is made."""

    name: str
    """What the results are called; unique in a load."""
    method: str
    """Full name of the RPC, as in `/package.Service/Method`."""
    streams: bool = False
    """Whether the response is a stream; a call then ends with its last message."""
    requests: tuple[bytes, ...]
    """Serialised requests; every caller goes round them, each from another start."""
    callers: int = 1
    """Calls under way at any time."""
    rate: float = 0.0
    """If positive: calls a second instead, at random times (Poisson), however many are under way."""
    endless: bool = False
    """For streams: every message counts as a call, and what is under way at the end is cancelled."""

    @property
    def load(self) -> str:
        """Callers at once, or arrivals a second, for the tables."""
        return f"{self.rate:g}/s" if self.rate else str(self.callers)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What to send, all at the same time."""

    address: str
    """`host:port`."""
    calls: tuple[Calls, ...]
    """The kinds of call."""
    seconds: float
    """How long to measure."""
    pids: tuple[int, ...]
    """Processes that serve the calls; what they compute is measured."""
    seed: int = 0
    """Of the times at which calls arrive, where they have a rate."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was measured of one kind of call."""

    calls: int
    """Calls answered in the measured time."""
    seconds: float
    """The measured time."""
    p50_ms: float
    """Median latency of these calls, milliseconds."""
    p99_ms: float
    """Latency that 99 of 100 of these calls stay within, milliseconds."""
    cpu_ms: float
    """CPU time of the serving processes in the measured time by the calls of all kinds, milliseconds."""
    errors: dict[str, int]
    """Status of each failed call, warm-up included, to how many there were."""

    @property
    def throughput(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds if self.seconds else 0.0


class _Window:
    """The measured time: from every caller's first answer on, until each could be answered once more."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.started = time.perf_counter()
        self.begun: float | None = None
        self.ended: float | None = None
        self.last = self.started
        """Time of the last answer that counts."""
        self.cpu = 0.0
        """CPU time of the serving processes in the measured time, seconds."""
        self._cpu_before: dict[int, float] = {}
        self.latencies: dict[str, list[float]] = {one.name: [] for one in load.calls}
        self.errors: dict[str, Counter[str]] = {one.name: Counter() for one in load.calls}
        self._silent = {(one.name, caller) for one in load.calls for caller in range(one.callers)}
        self._least = {one.name: 1 if one.rate else one.callers for one in load.calls}
        self._arriving = {one.name for one in load.calls if one.rate}

    def succeeded(self, name: str, caller: int, began: float) -> None:
        """Count an answer to a call of time `began`."""
        now = time.perf_counter()
        if self.begun is None:
            self._warm_up(name, caller, now)
            return
        # A caller's last call is cut off by the end; a call that arrived counts however late its answer.
        if self.ended is None or (name in self._arriving and began <= self.ended):
            self.latencies[name].append(now - began)
            self.last = now
        enough = self.ended is None and now - self.begun >= self.load.seconds
        if enough and all(len(self.latencies[one]) >= least for one, least in self._least.items()):
            self._end(now)

    def failed(self, name: str, caller: int, error: grpc.aio.AioRpcError) -> None:
        """Count a failure."""
        self.errors[name][f"{error.code().name}: {error.details()}"] += 1
        if self.begun is None:
            self._warm_up(name, caller, time.perf_counter())
        if self.ended is None and sum(errors.total() for errors in self.errors.values()) >= MOST_ERRORS:
            self._end(time.perf_counter())

    def _warm_up(self, name: str, caller: int, now: float) -> None:
        self._silent.discard((name, caller))
        least = min(WARM_UP_SECONDS, WARM_UP_SHARE * self.load.seconds)
        if not self._silent and now - self.started >= least:
            self.begun, self._cpu_before = now, self._cpu_seconds()

    def _end(self, now: float) -> None:
        self.ended = now
        after = self._cpu_seconds()
        self.cpu = sum(after[pid] - before for pid, before in self._cpu_before.items() if pid in after)

    def _cpu_seconds(self) -> dict[int, float]:
        seconds = {}
        for pid in self.load.pids:
            with contextlib.suppress(psutil.NoSuchProcess):  # one that its server needed for a while only
                times = psutil.Process(pid).cpu_times()
                seconds[pid] = times.user + times.system
        return seconds

    def results(self) -> dict[str, Result]:
        """What was measured, by the name of the kind of call."""
        seconds = self.last - (self.begun or self.started)
        total = sum(len(latencies) for latencies in self.latencies.values())
        results = {}
        for name, latencies in self.latencies.items():
            p50, p99 = np.percentile(1e3 * np.array(latencies or [np.nan]), [50, 99])
            results[name] = Result(
                calls=len(latencies),
                seconds=seconds,
                p50_ms=float(p50),
                p99_ms=float(p99),
                cpu_ms=1e3 * self.cpu / total if total else math.nan,
                errors=dict(self.errors[name]),
            )
        return results


def start_worker() -> None:
    """Prepare the process; the one that started it decides when it ends."""
    global _runner
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _runner = asyncio.Runner()


def measure(load: Load) -> dict[str, Result]:
    """Send `load`; calls under way at the end are waited for, so that the server is idle afterwards."""
    return _runner.run(_measure(load))


async def _measure(load: Load) -> dict[str, Result]:
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
    async with grpc.aio.insecure_channel(load.address, options=options) as channel:
        await asyncio.wait_for(channel.channel_ready(), CALL_SECONDS)
        window = _Window(load)
        senders = []
        for calls in load.calls:
            if calls.rate:
                senders.append(_arrivals(calls, channel, window))
            else:
                senders += [_caller(index, calls, channel, window) for index in range(calls.callers)]
        await asyncio.gather(*senders)
    return window.results()


async def _caller(index: int, calls: Calls, channel: grpc.aio.Channel, window: _Window) -> None:
    start = index % len(calls.requests)
    for request in itertools.cycle(calls.requests[start:] + calls.requests[:start]):
        await _call(index, calls, channel, window, request, time.perf_counter())
        if window.ended is not None:
            return


async def _arrivals(calls: Calls, channel: grpc.aio.Channel, window: _Window) -> None:
    """Calls that do not wait for each other; their latency counts from the time that was drawn for them."""
    generator, due, under_way = np.random.default_rng(window.load.seed), time.perf_counter(), set()
    for request in itertools.cycle(calls.requests):
        due += generator.exponential(1 / calls.rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if window.ended is not None:
            break
        under_way.add(task := asyncio.create_task(_call(0, calls, channel, window, request, due)))
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)


async def _call(
    index: int, calls: Calls, channel: grpc.aio.Channel, window: _Window, request: bytes, began: float
) -> None:
    try:
        if calls.endless or calls.streams:
            # Without serializers messages are bytes, which the types cannot tell.
            stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(calls.method)
            call = stream(request, timeout=CALL_SECONDS)
            if calls.endless:
                await _watched(call, index, calls, window)
                return
            await _drained(call)
        else:
            unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(calls.method)
            await _answered(unary(request, timeout=CALL_SECONDS))
    except grpc.aio.AioRpcError as error:
        window.failed(calls.name, index, error)
    else:
        window.succeeded(calls.name, index, began)


async def _watched(call: grpc.aio.UnaryStreamCall[bytes, bytes], index: int, calls: Calls, window: _Window) -> None:
    began = time.perf_counter()
    async for _ in call:
        window.succeeded(calls.name, index, began)
        began = time.perf_counter()
        if window.ended is not None:
            call.cancel()
            return


async def _answered(call: Awaitable[bytes]) -> None:
    if not await call:
        raise RuntimeError("expected a response, got an empty message")


async def _drained(call: AsyncIterable[bytes]) -> None:
    if not sum([len(part) async for part in call]):
        raise RuntimeError("expected a stream of responses, got no bytes")
