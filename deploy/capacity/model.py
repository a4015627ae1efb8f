"""Calls on their way through replicas, event by event, in simpy.

A replica has one event loop, which reads calls and writes answers in turns: a turn does all that is pending and costs
`wake_ms`, and `overhead_ms / 2` for each call. A call needs one before, between and after its rows of graphs, which run
in batches, in one compute slot: when that is free, and the event loop has nothing left to do, it takes everything that
waits for a row, up to the limit (`Stage` of the service puts a batch together in the event loop, after some quiet
turns). Where the graphs run on the CPU a batch holds a core, as a turn does. Cores serve in order of arrival, without
slices of time. On a GPU a batch takes as long as one of the next power of two, up to which the service fills it. What a
turn takes is drawn about its mean, log-normally: it stands for threads and processes that wake and wait for each other,
while a batch is one thread.
"""

import random
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import simpy
from iin_service.items import Limits

from deploy.capacity.arrivals import Arrivals, Closed
from deploy.capacity.autoscaler import Autoscaler, Autoscaling
from deploy.capacity.inputs import Call, Row

__all__ = ["Result", "Scenario", "filled_up", "simulate"]

STEP_S = 1.0  # how often the autoscaler looks
PROGRESS_EVERY_S = 1.0  # of simulated time
Events = Generator[simpy.Event, Any, None]


def filled_up(items: int) -> int:
    """Items that a GPU replica runs for a batch of `items`: the next power of two (`in_buckets` of the service)."""
    return 1 << (items - 1).bit_length()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is simulated."""

    rows: dict[str, Row]
    """Rows of graphs by name."""
    call: Call
    """What each call asks for."""
    overhead_ms: float
    """CPU time of a call of one row in the event loop: half before its graphs, half after; another between two rows."""
    wake_ms: float = 0.0
    """CPU time of a turn of the event loop, shared by all that it finds to do: a lone call takes two."""
    spread: float = 0.0
    """Standard deviation of the logarithm of what a turn takes; 0: each takes its mean."""
    arrivals: Arrivals
    """When calls come."""
    replicas: int = 1
    """Replicas, where they are not autoscaled."""
    autoscaling: Autoscaling | None = None
    """Serve's settings, where they are."""
    cores: int = 1
    """Cores of a replica."""
    accelerated: bool = False
    """Whether graphs run on a GPU, so that a batch holds no core, and is filled up to a power of two."""
    replicas_a_gpu: int = 1
    """Replicas that take turns on one GPU."""
    choices: int = 2
    """Replicas of which the least loaded gets a call: drawn anew for each; 1 is blind, all of them are leastconn."""
    max_batch: int = Limits.max_batch_size
    """Items in a batch at most."""
    max_items: int = Limits.max_queued_items
    """Items under way in a replica at most; a call past that is refused."""
    seconds: float = 20.0
    """Simulated time in which calls arrive."""
    warm_up_s: float = 2.0
    """Calls that arrive before this are not counted."""
    seed: int = 0
    """Of arrivals, routing and the spread of turns."""

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        for name in ("replicas", "cores", "replicas_a_gpu", "choices", "max_batch", "max_items"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if not 0 <= self.warm_up_s < self.seconds:
            raise ValueError(f"seconds: expected more than the warm-up of {self.warm_up_s} s, got {self.seconds}")
        for name, items in self.call:
            if name not in self.rows or not 1 <= items <= self.max_batch:
                raise ValueError(f"call: expected known rows with 1 to {self.max_batch} items, got {name!r}, {items}")

    @property
    def own_ms(self) -> float:
        """CPU time of the call in the event loop, without that of turns."""
        return self.overhead_ms / 2 * (len(self.call) + 1)


@dataclass
class Result:
    """What happened. Latencies and rates are of calls that arrived after the warm-up."""

    arrived: int = 0
    """Calls, the warm-up's included."""
    answered: int = 0
    """Calls, the warm-up's included."""
    refused: int = 0
    """Calls turned away by a full replica."""
    throughput: float = 0.0
    """Calls answered a second, between warm-up and the end of arrivals."""
    latencies_ms: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Of the answered calls, in order of their answers."""
    mean_batch: float = 0.0
    """Items in a batch, without those that a GPU replica fills it up with."""
    loop_ms: float = 0.0
    """CPU time of the event loop for a call."""
    graphs_ms: float = 0.0
    """Time of the graphs for a call."""
    mean_queue: float = 0.0
    """Items that wait for a row's slot in a replica, seen by the calls that come."""
    most_queued: int = 0
    """The most of these."""
    mean_ongoing: float = 0.0
    """Calls under way for each replica, seen by the calls that come."""
    replicas: list[tuple[float, int]] = field(default_factory=list)
    """Seconds and replicas that answer from then on."""

    def percentile(self, share: float) -> float:
        """Latency, ms, that `share` percent of the calls stay within; infinite where none was answered."""
        return float(np.percentile(self.latencies_ms, share)) if len(self.latencies_ms) else float("inf")


class _Replica:
    """One event loop and one compute slot."""

    def __init__(self, world: "_World", device: simpy.Resource | None) -> None:
        self.world, self.device = world, device
        self.cores = simpy.Resource(world.env, world.scenario.cores)
        self.ongoing = self.items = self.queued = 0
        self._turning = False
        self._waiting: dict[str, deque[tuple[float, int, simpy.Event]]] = {name: deque() for name in world.rows}
        self._pending: list[simpy.Event] = []
        self._ready, self._woken = world.env.event(), world.env.event()
        world.env.process(self._loop())
        world.env.process(self._work())

    def _turned(self) -> simpy.Event:
        """When the event loop has done a call's work for one turn."""
        done = self.world.env.event()
        self._pending.append(done)
        if not self._ready.triggered:
            self._ready.succeed()
        return done

    def _loop(self) -> Events:
        """Turns of the event loop, for ever: each does everything that is pending when it begins."""
        world, scenario, spread = self.world, self.world.scenario, self.world.scenario.spread
        while True:
            if not self._pending:
                self._turning = False
                self._wake()
                self._ready = world.env.event()
                yield self._ready
            self._turning = True
            with self.cores.request() as core:
                yield core
                pending, self._pending = self._pending, []
                factor = world.random.lognormvariate(-(spread**2) / 2, spread) if spread else 1.0
                yield world.env.timeout(factor * scenario.wake_ms / 1e3)
                for done in pending:  # one by one: the first answers leave while others are written
                    yield world.env.timeout(factor * scenario.overhead_ms / 2e3)
                    done.succeed()
            world.turns += 1

    def call(self, done: Callable[[], None]) -> Events:
        """A call from its arrival to its answer."""
        env, scenario = self.world.env, self.world.scenario
        items = max(count for _, count in scenario.call)
        self.ongoing, self.items = self.ongoing + 1, self.items + items
        for name, count in scenario.call:
            yield self._turned()
            finished = env.event()
            self._waiting[name].append((env.now, count, finished))
            self.queued += count
            self._wake()
            yield finished
        yield self._turned()
        self.ongoing, self.items = self.ongoing - 1, self.items - items
        done()

    def _wake(self) -> None:
        if not self._woken.triggered:
            self._woken.succeed()

    def _work(self) -> Events:
        """Run batches, for ever."""
        world, limit = self.world, self.world.scenario.max_batch
        while True:
            # What has arrived is read first, so that it joins the batch; answers of the one before are written first.
            while not self.queued or ((self._turning or self._pending) and self.queued < limit):
                self._woken = world.env.event()
                yield self._woken
            if self.device is not None:
                with self.device.request() as turn:
                    yield turn
                    yield from self._batch()
            else:
                with self.cores.request() as core:
                    yield core
                    yield from self._batch()

    def _batch(self) -> Events:
        """The row whose first call has waited longest, for all that fit."""
        world = self.world
        name = min((one for one, parts in self._waiting.items() if parts), key=lambda one: self._waiting[one][0][0])
        waiting, taken, size = self._waiting[name], [], 0
        while waiting and size + waiting[0][1] <= world.scenario.max_batch:
            _, count, finished = waiting.popleft()
            size += count
            taken.append(finished)
        self.queued -= size
        world.batches += 1
        world.batched_items += size
        milliseconds = world.milliseconds(name, size)
        world.graphs_ms += milliseconds
        yield world.env.timeout(milliseconds / 1e3)
        for finished in taken:
            finished.succeed()
        for _ in range(2):  # their calls go on to the event loop, and that asks for the core before the next batch does
            yield world.env.timeout(0)


class _World:
    """Replicas, the router, and what is counted."""

    def __init__(self, scenario: Scenario, progress: Callable[[float], None]) -> None:
        self.scenario, self.rows, self.progress = scenario, scenario.rows, progress
        self.env = simpy.Environment()
        self.random = random.Random(scenario.seed)
        self.running: list[_Replica] = []
        self.starting = self.made = 0
        self.device: simpy.Resource | None = None
        self.batches = self.batched_items = self.turns = 0
        self.graphs_ms = 0.0
        self.seen: list[tuple[int, float]] = []  # items queued in the chosen replica, calls under way for each
        self.latencies: list[float] = []
        self.answered_in_time = 0
        self.result = Result()
        self._times: dict[tuple[str, int], float] = {}

    def milliseconds(self, name: str, items: int) -> float:
        batch = filled_up(items) if self.scenario.accelerated else items
        if (name, batch) not in self._times:
            self._times[name, batch] = self.rows[name].milliseconds(batch)
        return self._times[name, batch]

    def add_replica(self) -> None:
        scenario = self.scenario
        if scenario.accelerated and self.made % scenario.replicas_a_gpu == 0:
            self.device = simpy.Resource(self.env, 1)
        self.made += 1
        self.running.append(_Replica(self, self.device))
        self.result.replicas.append((self.env.now, len(self.running)))

    def remove_replica(self) -> None:
        """The least loaded one gets no more calls, and ends those that it has."""
        least = min(self.running, key=lambda one: one.ongoing)
        self.running.remove(least)
        self.result.replicas.append((self.env.now, len(self.running)))

    def send(self, done: Callable[[], object] | None = None) -> None:
        """Route a call; `done` is called when its answer, or refusal, is there."""
        choices = min(self.scenario.choices, len(self.running))
        drawn = self.running if choices == len(self.running) else self.random.sample(self.running, choices)
        chosen = min(drawn, key=lambda one: one.ongoing)
        result, began = self.result, self.env.now
        result.arrived += 1
        counted = began >= self.scenario.warm_up_s
        if counted:
            self.seen.append((chosen.queued, sum(one.ongoing for one in drawn) / len(drawn)))
        if chosen.items and chosen.items + max(count for _, count in self.scenario.call) > self.scenario.max_items:
            result.refused += 1
            if done is not None:
                self.env.process(self._later(done))
            return

        def answered() -> None:
            result.answered += 1
            if self.scenario.warm_up_s <= self.env.now <= self.scenario.seconds:
                self.answered_in_time += 1
            if counted:
                self.latencies.append(self.env.now - began)
            if done is not None:
                done()

        self.env.process(chosen.call(answered))

    def _later(self, done: Callable[[], object]) -> Events:
        """A caller that was refused waits a little, as the shipped client does."""
        yield self.env.timeout(0.1)
        done()

    def open_loop(self, times: Iterator[float]) -> Events:
        for moment in times:
            if moment > self.scenario.seconds:
                return
            yield self.env.timeout(moment - self.env.now)
            self.send()

    def caller(self) -> Events:
        while self.env.now < self.scenario.seconds:
            answered = self.env.event()
            self.send(answered.succeed)
            yield answered

    def autoscale(self, scaler: Autoscaler) -> Events:
        while self.env.now < self.scenario.seconds:
            yield self.env.timeout(STEP_S)
            target = scaler.decide(self.env.now, sum(one.ongoing for one in self.running), len(self.running))
            for _ in range(target - len(self.running) - self.starting):
                self.starting += 1
                self.env.process(self._start(scaler))
            while len(self.running) > target:
                self.remove_replica()

    def _start(self, scaler: Autoscaler) -> Events:
        yield self.env.timeout(scaler.settings.start_s)
        self.starting -= 1
        if len(self.running) < scaler.target:  # else it is not wanted any more
            self.add_replica()

    def report_progress(self) -> Events:
        while self.env.now < self.scenario.seconds:
            self.progress(self.env.now / self.scenario.seconds)
            yield self.env.timeout(PROGRESS_EVERY_S)


def simulate(scenario: Scenario, progress: Callable[[float], None] = lambda share: None) -> Result:
    """Run `scenario` until every call has left; `progress` is called with the share of the time done."""
    world = _World(scenario, progress)
    env, arrivals = world.env, scenario.arrivals
    first = scenario.autoscaling.min_replicas if scenario.autoscaling else scenario.replicas
    for _ in range(first):
        world.add_replica()
    if scenario.autoscaling:
        env.process(world.autoscale(Autoscaler(scenario.autoscaling)))
    if isinstance(arrivals, Closed):
        for _ in range(arrivals.callers):
            env.process(world.caller())
    else:
        env.process(world.open_loop(arrivals.times(world.random)))
    env.process(world.report_progress())
    env.run()
    seen = np.array(world.seen or [(0, 0.0)])
    return replace(
        world.result,
        throughput=world.answered_in_time / (scenario.seconds - scenario.warm_up_s),
        latencies_ms=1e3 * np.array(world.latencies),
        mean_batch=world.batched_items / max(world.batches, 1),
        loop_ms=scenario.own_ms + scenario.wake_ms * world.turns / max(world.result.answered, 1),
        graphs_ms=world.graphs_ms / max(world.result.answered, 1),
        mean_queue=float(seen[:, 0].mean()),
        most_queued=int(seen[:, 0].max()),
        mean_ongoing=float(seen[:, 1].mean()),
    )
