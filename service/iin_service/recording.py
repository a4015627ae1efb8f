"""What the service counts and times; `metrics` exports it."""

from numpy.typing import NDArray

__all__ = ["Recorder"]


class Recorder:
    """Records what happens; every method is quick and never fails. This base class records nothing."""

    def call(self, rpc: str, code: str, seconds: float) -> None:
        """A call, or a message of a stream of requests, was answered with the status `code`, or such a stream ended."""

    def batch(self, stage: str, items: int, queue_seconds: float, compute_seconds: float) -> None:
        """A graph ran on a batch whose oldest item had waited for `queue_seconds`."""

    def waiting(self, stage: str, change: int) -> None:
        """The number of items that wait for a graph has changed since its last batch ended."""

    def batch_failed(self) -> None:
        """A graph raised."""

    def under_way(self, items: int) -> None:
        """So many items are under way now."""

    def likelihoods(self, quantiles: NDArray) -> None:  # type: ignore[type-arg]
        """Items were interpreted whose log-likelihoods have these quantiles, `(n,)` in [0, 1]."""

    def unreadable_image(self) -> None:
        """An encoded image was refused."""
