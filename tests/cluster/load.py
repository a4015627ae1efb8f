"""Callers with the shipped client, and what became of their calls."""

import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from iin_client import Client

__all__ = ["Load"]

TIMEOUT_SECONDS = 60.0


@dataclass
class Load:
    """Callers that call one after another until the block ends, which prints what became of their calls."""

    address: str
    pictures: list[Path]
    interprets: int = 6
    """Callers of Interpret, the model's version asked for in every tenth call."""
    streams: int = 1
    """Callers of Sample, a stream of answers."""
    samples: int = 8
    """Images of each stream."""
    pause: float = 0.1
    """Seconds between the calls of a caller."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """How long each answered call took, by kind."""
    lost: list[str] = field(default_factory=list)
    """Time, kind and error of each call that failed."""
    versions: Counter[str] = field(default_factory=Counter)
    """Versions of the model that answered."""

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._start = time.monotonic()
        kinds = [self._interpret] * self.interprets + [self._sample] * self.streams
        self._threads = [threading.Thread(target=self._call, args=(n, kind)) for n, kind in enumerate(kinds)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for line in self._report():
            print(f"  {line}", flush=True)

    def _call(self, number: int, call: Callable[[Client, int], str]) -> None:
        with Client(self.address, timeout=TIMEOUT_SECONDS) as client:
            count = number
            while not self._stop.is_set():
                begin = time.monotonic()
                try:
                    kind = call(client, count)
                    self.seconds[kind].append(time.monotonic() - begin)
                except Exception as error:  # whatever it is, the call was not answered
                    took = time.monotonic() - begin
                    self.lost.append(
                        f"at {begin - self._start:.1f} s, {call.__name__.strip('_')}, after {took:.1f} s: {error}"
                    )
                count += 1
                self._stop.wait(self.pause)

    def _interpret(self, client: Client, count: int) -> str:
        if count % 10 == 0:
            self.versions[client.get_model().version] += 1
            return "GetModel"
        client.interpret(self.pictures[count % len(self.pictures)])
        return "Interpret"

    def _sample(self, client: Client, count: int) -> str:
        got = sum(len(some.factors) for some in client.sample(self.samples, seed=count))
        assert got == self.samples, f"{got} of {self.samples} samples, without an error"
        return "Sample"

    def _report(self) -> list[str]:
        """A line for each kind of call, and for each lost call."""
        lines = []
        for kind, seconds in sorted(self.seconds.items()):
            ordered = sorted(seconds)
            last = ordered[int(0.99 * len(ordered))]
            lines.append(
                f"{kind}: {len(seconds)} answered, half within {1000 * statistics.median(ordered):.0f} ms, "
                f"99 % within {1000 * last:.0f} ms, all within {1000 * ordered[-1]:.0f} ms"
            )
        return [*lines, f"lost: {len(self.lost)}", *self.lost[:20]]
