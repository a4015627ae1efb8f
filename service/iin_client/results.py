"""What calls return."""

import io
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iin_client.errors import CallError

__all__ = [
    "Answer",
    "Edited",
    "FactorResponse",
    "Frames",
    "Images",
    "Interpretations",
    "Responses",
    "Samples",
    "StageTiming",
    "Timing",
]

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class StageTiming:
    """One pass of a call's items through a stage."""

    stage: str
    """encoder, transform, inverse, decoder or head."""
    queue_ms: float
    """Waiting for the stage, milliseconds; 0 where a graph runs right after another."""
    compute_ms: float
    """Running the batch, milliseconds."""
    batch_size: int
    """Items in the batch, those of other calls included."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Where the time of a call went, inside the service."""

    total_ms: float
    """From the request's arrival in the replica to its answer, milliseconds."""
    queue_ms: float
    """Sum of `queue_ms` over the stages."""
    codec_ms: float
    """Reading and writing image files, milliseconds, waiting for a thread included."""
    stages: tuple[StageTiming, ...]
    """In order of completion."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """N images in the format that the call asked for; nothing for output `none`."""

    files: tuple[bytes, ...] = ()
    """N files for output `png`, `jpeg` and `webp`, else empty."""
    raw: NDArray[np.float32] | None = None
    """Shape `(N, C, H, W)` in the model's range for output `raw`, else None."""

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        """The N files as Pillow images, mode L or RGB; ValueError for raw images."""
        if self.raw is not None:
            raise ValueError("pictures: expected image files, got raw images; call with output='png'")
        return tuple(Image.open(io.BytesIO(data)) for data in self.files)


@dataclass(frozen=True, kw_only=True, eq=False)
class Interpretations:
    """N interpreted items."""

    latents: NDArray[np.float32]
    """`z`, shape `(N, D)`, or `(N, C', H', W')` for spatial latents."""
    factors: NDArray[np.float32]
    """`z~ = T(z)`, shape `(N, D)`; `Model.split` names the slices."""
    log_likelihoods: NDArray[np.float64]
    """`log N(z~; 0, I) + log|det T'(z)|`, shape `(N,)`, nats."""
    log_likelihood_quantiles: NDArray[np.float64]
    """Share of held-out images that are less likely, shape `(N,)`, in [0, 1]."""
    probabilities: NDArray[np.float32] | None
    """Class probabilities, shape `(N, classes)`; None for a model without a head."""
    timing: Timing


@dataclass(frozen=True, kw_only=True, eq=False)
class Edited:
    """N edited items."""

    images: Images
    """The N edited images."""
    factors: NDArray[np.float32]
    """Factor vectors after the edits, shape `(N, D)`."""
    latents: NDArray[np.float32] | None
    """Their `z`, shape `(N, D)` or `(N, C', H', W')`, if asked for."""
    probabilities: NDArray[np.float32] | None
    """Class probabilities, shape `(N, classes)`; None for a model without a head."""
    timing: Timing


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples(Edited):
    """N consecutive samples from the prior, as images, factor vectors, and what else was asked for."""

    first_index: int
    """Index of the first of them, counted from 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames(Edited):
    """N consecutive frames of a path, as images, factor vectors, and what else was asked for."""

    first_index: int
    """Index of the first of them, counted from 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FactorResponse:
    """What drawing one factor anew does to the classes of N items."""

    mean_probabilities: NDArray[np.float32]
    """Mean over the draws, shape `(N, classes)`."""
    probability_deviations: NDArray[np.float32]
    """Standard deviation over the draws, shape `(N, classes)`."""
    class_deviations: NDArray[np.float64]
    """Standard deviation of the number of the most probable class, shape `(N,)`."""
    class_changes: NDArray[np.float64]
    """Share of the draws whose most probable class is another than the item's, shape `(N,)`, in [0, 1]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Responses:
    """Network response analysis of N items."""

    probabilities: NDArray[np.float32]
    """Class probabilities of the items as they are, shape `(N, classes)`."""
    factors: dict[str, FactorResponse]
    """By name of the factor, in the order asked for."""
    timing: Timing


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer(Generic[Result]):
    """The answer to one item of a stream."""

    item_id: str
    """As the caller chose it."""
    result: Result | None
    """What came of the item, or None beside an error."""
    error: CallError | None
    """Why there is no result; the other items are not affected."""
