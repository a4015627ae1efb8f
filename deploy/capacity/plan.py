"""How many replicas a rate needs, what they cost, and what a day with autoscaling costs.

A replica's share of a large service is found on a slice: SLICE replicas and the calls that fall to them. A router
that draws two replicas for each call leaves, in a slice of some replicas, the queues that it leaves among thousands,
but for terms of 1 / SLICE (Mitzenmacher 2001); 100,000 calls a second are never simulated one by one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from deploy.capacity.arrivals import Daily, Poisson
from deploy.capacity.autoscaler import Autoscaler, Autoscaling
from deploy.capacity.model import Result, Scenario, simulate

__all__ = [
    "SLICE",
    "Curve",
    "Day",
    "Slice",
    "capacity",
    "comfortable",
    "day",
    "need",
    "optimistic_capacity",
    "under_way",
]

SLICE = 8  # replicas that are simulated for a service of more
CALLS, LEAST_S, MOST_S = 100_000, 10.0, 100.0  # a simulation: so many calls, in so many seconds at least and at most
WARM_UP_S = 1.0
STEPS = 6  # halvings of the interval in which the rate of a replica is looked for
STEADY = 0.95  # answered while calls arrive; less is a queue that grows (the count itself varies by 1 %)
COMFORT = 0.7  # of a replica's rate: where autoscaling holds it (a test compares deploy/RUNBOOK.md)
DAY_STEP_S = 10.0
SHARES = (0.1, 0.25, 0.5, 0.7, 0.85, 1.0)  # of a replica's rate
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Slice:
    """What a replica of a large service bears."""

    rate: float
    """Calls a second of one replica."""
    result: Result
    """What SLICE of them did."""


@dataclass(frozen=True)
class Curve:
    """Calls under way in a replica by its load."""

    rates: tuple[float, ...]
    """Calls a second, rising; the last is what the replica can do."""
    calls: tuple[float, ...]
    """Calls under way in the mean."""


@dataclass(frozen=True)
class Day:
    """What a day took."""

    mean: float
    """Replicas in the mean."""
    most: int
    """Replicas at once."""
    late: float
    """Share of the calls that came while there was a backlog: while new replicas started."""


def optimistic_capacity(scenario: Scenario) -> float:
    """Calls a second of one replica with full batches and no waiting; what it does is below."""
    full = scenario.max_batch
    graphs = sum(scenario.rows[name].milliseconds(full) / full * items for name, items in scenario.call)
    if scenario.accelerated:  # the event loop is one thread, and replicas take turns on the GPU
        return 1e3 / max(scenario.own_ms, graphs * scenario.replicas_a_gpu)
    return 1e3 / max(scenario.own_ms, graphs, (scenario.own_ms + graphs) / scenario.cores)


def run(scenario: Scenario, replicas: int, rate: float) -> Result:
    """`replicas` of `scenario` with `rate` calls a second altogether."""
    seconds = WARM_UP_S + min(max(LEAST_S, CALLS / rate), MOST_S)
    return simulate(
        replace(
            scenario,
            replicas=replicas,
            arrivals=Poisson(rate),
            seconds=seconds,
            warm_up_s=WARM_UP_S,
        )
    )


def meets(result: Result, rate: float, p99_ms: float) -> bool:
    """Whether the calls were answered in time, and no queue grew meanwhile."""
    return not result.refused and result.throughput >= STEADY * rate and result.percentile(99) <= p99_ms


def capacity(scenario: Scenario, p99_ms: float, progress: Progress = lambda text: None) -> Slice | None:
    """The most that a replica of a large service bears with 99 of 100 within `p99_ms`; None where it never does."""
    low, high, best = 0.0, optimistic_capacity(scenario), None
    for step in range(STEPS):
        rate = (low + high) / 2
        progress(f"{rate:.0f} calls a second for each of {SLICE} replicas ({step + 1} of {STEPS})")
        result = run(scenario, SLICE, SLICE * rate)
        if meets(result, SLICE * rate, p99_ms):
            low, best = rate, Slice(rate, result)
        else:
            high = rate
    return best


def need(
    scenario: Scenario, rate: float, p99_ms: float, each: Slice, progress: Progress = lambda text: None
) -> tuple[int, Result]:
    """Replicas for `rate` calls a second: by the slice where there are many, tried one by one where there are few.

    `each` is what `capacity` found for the same scenario and target. Beside them what they did, or their slice.
    """
    replicas = math.ceil(rate / each.rate)
    while replicas <= SLICE:
        progress(f"{rate:g} calls a second on {replicas} replicas")
        result = run(scenario, replicas, rate)
        if meets(result, rate, p99_ms):
            return replicas, result
        replicas += 1
    return replicas, each.result


def comfortable(curve: Curve) -> float:
    """target_ongoing_requests: calls under way in a replica at COMFORT of its rate, which leaves time to start more.

    Past its rate a replica has at first hardly more calls under way than at it: Serve would see the need late.
    """
    return max(float(np.interp(COMFORT * curve.rates[-1], curve.rates, curve.calls)), 1.0)


def under_way(scenario: Scenario, top: float, progress: Progress = lambda text: None) -> Curve:
    """Calls under way in a replica by its calls a second, up to `top`, from simulations of a slice."""
    loads, calls = [0.0], [0.0]
    for share in SHARES:
        progress(f"calls under way at {share:.0%} of a replica's rate")
        loads.append(share * top)
        calls.append(run(scenario, SLICE, SLICE * share * top).mean_ongoing)
    return Curve(tuple(loads), tuple(calls))


def day(curve: Curve, wave: Daily, settings: Autoscaling) -> Day:
    """A day under Serve's autoscaling, not call by call: its decisions, every 10 s, about calls under way by `curve`.

    The last rate of the curve is what a replica can do; what comes beyond waits, and is under way as well.
    """
    steps = round(wave.day_s / DAY_STEP_S)
    scaler = Autoscaler(settings)
    settled = wave.rate_at(0) / float(np.interp(settings.target_ongoing_requests, curve.calls, curve.rates))
    scaler.target = running = min(max(math.ceil(settled), settings.min_replicas), settings.max_replicas)
    backlog, coming = 0.0, list[float]()
    held = rates = late = 0.0
    most = 0
    for step in range(steps):
        now = step * DAY_STEP_S
        rate = wave.rate_at(now)
        backlog = max(backlog + (rate - running * curve.rates[-1]) * DAY_STEP_S, 0.0)
        ongoing = backlog + running * float(np.interp(rate / running, curve.rates, curve.calls))
        target = scaler.decide(now, ongoing, running)
        running += sum(one <= now for one in coming)
        coming = [one for one in coming if one > now][: max(target - running, 0)]
        coming += [now + settings.start_s] * (target - running - len(coming))
        running = min(running, target)
        held, most, rates, late = held + running, max(most, running), rates + rate, late + rate * (backlog > 0)
    return Day(held / steps, most, late / rates)
