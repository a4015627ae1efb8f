"""When calls come: at random at a rate, from callers that wait for their answers, along a day."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Arrivals", "Closed", "Daily", "Poisson"]


@dataclass(frozen=True)
class Poisson:
    """Calls at random moments, independent of each other and of their answers."""

    rate: float
    """Calls a second."""

    def __post_init__(self) -> None:
        """Refuse a rate that is none."""
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate: expected more than 0 calls a second, got {self.rate}")

    def times(self, random: random.Random) -> Iterator[float]:
        """Moments of the calls, seconds, without end."""
        now = 0.0
        while True:
            now += random.expovariate(self.rate)
            yield now


@dataclass(frozen=True)
class Daily:
    """A day as one wave: quietest at its beginning and end, busiest in its middle; random like `Poisson`."""

    mean: float
    """Calls a second, over the day."""
    peak: float
    """Calls a second at the busiest moment; the quietest has 2 * mean - peak."""
    day_s: float = 86_400.0
    """Seconds from one quietest moment to the next; a shorter day is sooner simulated, and leaves Serve less time."""

    def __post_init__(self) -> None:
        """Refuse a wave that would be below zero."""
        if not 0 < self.mean <= self.peak <= 2 * self.mean:
            raise ValueError(f"peak: expected mean to 2 * mean, the mean being {self.mean}, got {self.peak}")
        if not self.day_s > 0:
            raise ValueError(f"day_s: expected more than 0 seconds, got {self.day_s}")

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

    callers: int
    """How many."""

    def __post_init__(self) -> None:
        """Refuse a crowd of none."""
        if self.callers < 1:
            raise ValueError(f"callers: expected 1 or more, got {self.callers}")


Arrivals = Poisson | Daily | Closed
