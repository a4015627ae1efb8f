"""What calls return."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Edited", "Images", "Interpretations", "Samples", "StageTiming", "Timing"]


@dataclass(frozen=True, kw_only=True)
class StageTiming:
    """One pass of a call's items through a stage."""

    stage: str
    """encoder, transform, inverse, decoder or head."""
    queue_ms: float
    """Waiting for the stage, milliseconds."""
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
    """Reading and writing image files, milliseconds."""
    stages: tuple[StageTiming, ...]
    """In order of completion."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """N images in the format that the call asked for."""

    png: tuple[bytes, ...] = ()
    """N PNG files for output `png`, else empty."""
    raw: NDArray[np.float32] | None = None
    """Shape `(N, C, H, W)` in the model's range for output `raw`, else None."""

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        """The N PNG files as Pillow images, mode L or RGB; ValueError for raw images."""
        if self.raw is not None:
            raise ValueError("pictures: expected PNG images, got raw ones; call with output='png'")
        return tuple(Image.open(io.BytesIO(data)) for data in self.png)


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
    timing: Timing


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """n consecutive samples from the prior."""

    first_index: int
    """Index of the first of them, counted from 0."""
    images: Images
    """The n images."""
    factors: NDArray[np.float32]
    """Their factor vectors, shape `(n, D)`."""
    timing: Timing
