"""What passes between requests, engine and responses: items, results, limits; no transport."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iin_service.stage import Array, Pass, copied

__all__ = [
    "Decoded",
    "Given",
    "Held",
    "Interpreted",
    "Kind",
    "Limits",
    "Response",
    "Trace",
    "Wanted",
]

Kind = Literal["image", "latent", "factors"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a call may ask for, and how much may wait."""

    max_items: int = 256
    """Items in the inputs, targets or sources of one call."""
    max_samples: int = 10_000
    """Samples of one call, frames of a path, draws of an analysis over all its items and factors."""
    max_edits: int = 64
    """Edits of one call."""
    max_batch_size: int = 64
    """Items that a stage takes at once."""
    max_queued_items: int = 4096
    """Items of all calls under way together; a call past it is refused before it costs anything."""
    samples_per_message: int = 32
    """Samples or frames in one message of a stream."""
    stream_window: int = 64
    """Messages of one stream of requests that are worked on at once."""


@dataclass(frozen=True)
class Given:
    """Items that a request gives: images, latents or factors."""

    kind: Kind
    items: Array
    """`(n, C, H, W)`, `(n, *latent_shape)` or `(n, D)`."""
    field: str
    """Their path in the request, for error messages."""
    fields: tuple[str, ...] = ()
    """The path of each item, if they come from several fields."""

    @classmethod
    async def together(cls, parts: "Sequence[Given]") -> "Given":
        """Parts of one kind as one, so that they pass the stages together; does not hold the event loop."""
        if len(parts) == 1:
            return parts[0]
        fields = tuple(name for one in parts for name in one.fields or (one.field,) * len(one.items))
        arrays = [one.items for one in parts]
        items = await copied(sum(one.nbytes for one in arrays), lambda: np.concatenate(arrays))
        return cls(parts[0].kind, items, parts[0].field, fields)

    def field_of(self, row: int) -> str:
        """The path of item `row` in the request."""
        return self.fields[row] if self.fields else self.field


class Held(NamedTuple):
    """A factor that is not drawn."""

    where: slice
    """Its place in a factor vector."""
    values: Array | Given
    """`(size,)`, or a source of one item that has them."""
    field: str
    """Path in the request of what gives them, for error messages."""


@dataclass
class Trace:
    """Where the time of a call goes."""

    started: float = field(default_factory=time.perf_counter)
    codec_seconds: float = 0.0
    pixels: int = 0
    """Pixels of the image files read so far."""
    pictures: int = 0
    """Number of these files."""
    file_bytes: int = 0
    """Bytes of these files."""
    passes: list[Pass] = field(default_factory=list)
    patient: bool = False
    """Whether the call waits for room in a full replica, where others are refused, and lets others pass in queues."""
    turn: asyncio.Lock | None = None
    """Held by the message of a stream that waits for room."""


@dataclass(frozen=True)
class Interpreted:
    """N interpreted items."""

    latents: Array
    """`(N, *latent_shape)`."""
    factors: Array
    """`(N, D)`."""
    log_likelihoods: NDArray[np.float64]
    """`(N,)` in nats."""
    quantiles: NDArray[np.float64]
    """`(N,)` in [0, 1]."""
    probabilities: Array | None = None
    """`(N, classes)` where the model has a head."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be made of factor vectors."""

    images: bool = True
    """Decode them."""
    latents: bool = False
    """Give their latents too."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """N factor vectors and what was made of them."""

    factors: Array
    """`(N, D)`."""
    images: Array | None = None
    """`(N, C, H, W)` in the model's range."""
    latents: Array | None = None
    """`(N, *latent_shape)`."""
    probabilities: Array | None = None
    """`(N, classes)` where the model has a head."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """What drawing one factor anew does to the classes of N items."""

    factor: str
    """Name of the factor."""
    mean_probabilities: Array
    """`(N, classes)`, over the draws."""
    probability_deviations: Array
    """`(N, classes)`: standard deviation over the draws."""
    class_deviations: NDArray[np.float64]
    """`(N,)`: standard deviation of the number of the most probable class."""
    class_changes: NDArray[np.float64]
    """`(N,)`: share of the draws whose most probable class differs from the item's."""
