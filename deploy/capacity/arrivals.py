"""When calls come: at random at a rate, from callers that wait for their answers, along a day."""

import math
import random
from collections.abc import Iterator

from pydantic.dataclasses import dataclass

from deploy.capacity.inputs import Count, Positive

__all__ = ["Arrivals", "Closed", "Daily", "Poisson"]


@dataclass(frozen=True)
class Poisson:
    """Calls at random moments, independent of each other and of their answers."""

    rate: Positive
    """Calls a second."""

    def times(self, random: random.Random) -> Iterator[float]:
        """Moments of the calls, seconds, without end."""
        now = 0.0
        while True:
            now += random.expovariate(self.rate)
            yield now


@dataclass(frozen=True)
class Daily:
    """A day as one wave: quietest at its beginning and end, busiest in its middle; random like `Poisson`."""

    mean: Positive
    """Calls a second, over the day."""
    peak: float
    """Calls a second at the busiest moment; the quietest has 2 * mean - peak."""
    day_s: Positive = 86_400.0
    """Seconds from one quietest moment to the next; a shorter day is sooner simulated, and leaves Serve less time."""

    def __post_init__(self) -> None:
        """Refuse a wave that would be below zero."""
        if not self.mean <= self.peak <= 2 * self.mean:
            raise ValueError(f"peak: expected mean to 2 * mean, the mean being {self.mean}, got {self.peak}")

    def rate_at(self, now: float) -> float:
        """Calls a second at `now`, seconds."""
        return self.mean - (self.peak - self.mean) * math.cos(2 * math.pi * now / self.day_s)

    def times(self, random: random.Random) -> Iterator[float]:
        """Moments of the calls: those of a Poisson stream at the peak, thinned (Lewis and Shedler 1979)."""
        for now in Poisson(self.peak).times(random):
            if random.random() * self.peak < self.rate_at(now):
                yield now


@dataclass(frozen=True)
class Closed:
    """Callers that send their next call when the one before was answered."""

    callers: Count
    """How many."""


Arrivals = Poisson | Daily | Closed
