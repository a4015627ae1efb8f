"""Open-loop load: calls at random moments, whether or not the ones before were answered.

Runs in the same process as `load` (`load.start_worker` first). A call's latency counts from the moment at which it was
due, so that a client that falls behind does not make the server look better.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass

import grpc.aio
import numpy as np

from tests.bench import load

__all__ = ["OpenLoad", "measure"]

WARM_UP_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class OpenLoad:
    """What to send."""

    address: str
    """`host:port`."""
    method: str
    """Full name of the unary RPC."""
    requests: tuple[bytes, ...]
    """Serialised requests, sent in turn."""
    rate: float
    """Calls a second, Poisson."""
    seconds: float
    """How long to measure, after a warm-up of half a second."""
    seed: int
    """Of the moments."""


def measure(given: OpenLoad) -> load.Result:
    """Send the calls and wait for all; the CPU time of the server is not measured."""
    return load.run(_measure(given))


async def _measure(given: OpenLoad) -> load.Result:
    rng, due, now = random.Random(given.seed), [], 0.0
    while (now := now + rng.expovariate(given.rate)) < WARM_UP_SECONDS + given.seconds:
        due.append(now)
    errors: Counter[str] = Counter()
    ends: dict[float, float] = {}
    async with grpc.aio.insecure_channel(given.address) as channel:
        await asyncio.wait_for(channel.channel_ready(), load.CALL_SECONDS)
        unary = channel.unary_unary(given.method)

        async def one(moment: float, request: bytes) -> None:
            try:
                await unary(request, timeout=load.CALL_SECONDS)
                ends[moment] = time.perf_counter() - started
            except grpc.aio.AioRpcError as error:
                errors[f"{error.code().name}: {error.details()}"] += 1

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for moment, request in zip(due, itertools.cycle(given.requests), strict=False):
                await asyncio.sleep(max(moment - (time.perf_counter() - started), 0))
                group.create_task(one(moment, request))
    latencies = [1e3 * (end - moment) for moment, end in ends.items() if moment >= WARM_UP_SECONDS]
    p50, p99 = np.percentile(latencies or [np.nan], [50, 99])
    in_time = sum(WARM_UP_SECONDS <= end < WARM_UP_SECONDS + given.seconds for end in ends.values())
    return load.Result(
        calls=in_time, seconds=given.seconds, p50_ms=float(p50), p99_ms=float(p99), cpu_ms=0.0, errors=dict(errors)
    )
