"""The served model and the limits of the service, as `Client.get_model` describes them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FactorSlice", "Figure", "Graph", "ImageSpec", "Limits", "Model", "Quantile", "ServedModel"]


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """Size and range of the images that the model takes and gives."""

    channels: int
    """1 (grey) or 3 (red, green, blue)."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    minimum: float
    """Value of black in raw images."""
    maximum: float
    """Value of full intensity in raw images."""


@dataclass(frozen=True, kw_only=True)
class FactorSlice:
    """One factor: dimensions `start` to `start + size` (exclusive) of `z~`."""

    name: str
    """Unique name; `residual` holds what no other factor names."""
    start: int
    """First dimension, counted from 0."""
    size: int
    """Number of dimensions."""


@dataclass(frozen=True, kw_only=True)
class Quantile:
    """A point of a distribution function."""

    probability: float
    """Share of held-out images at or below the value, in [0, 1]."""
    value: float
    """Log-likelihood in nats."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A quality measured on held-out images."""

    name: str
    """Short name."""
    value: float
    """What was measured."""
    ceiling: float | None
    """The best that the first stage allows, measured likewise; None if not stated."""
    floor: float | None
    """What chance gives, measured likewise; None if not stated."""
    meaning: str
    """How it was measured."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One ONNX graph of the bundle."""

    role: str
    """encoder, transform, inverse, decoder or head."""
    sha256: str
    """Digest of its file, hexadecimal."""
    bytes: int
    """Length of its file."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a call may ask for."""

    max_items: int
    """Items in the inputs, targets or sources of one call."""
    max_samples: int
    """Samples of one call, frames of a path, draws of an analysis over all its items and factors."""
    max_edits: int
    """Edits of one call."""
    max_image_pixels: int
    """Pixels of the encoded images of one call together, before resizing."""
    max_message_bytes: int
    """Bytes of a message, either way."""
    max_batch_size: int
    """Items that a stage takes at once."""
    max_queued_items: int
    """Items of all calls under way in a replica together; above it calls get RESOURCE_EXHAUSTED, and streams wait."""
    stream_window: int
    """Messages of one stream that are worked on at once."""
    samples_per_message: int
    """Samples or frames in one message of a stream."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A served model."""

    name: str
    version: str
    family: str
    """Kind of model; `iin` is an invertible interpretation network."""
    image: ImageSpec
    latent_shape: tuple[int, ...]
    """Shape of one latent: `(D,)`, or `(C', H', W')`."""
    factors: tuple[FactorSlice, ...]
    """Slices that cover the factor vector exactly once."""
    log_likelihood_quantiles: tuple[Quantile, ...]
    """Distribution of the log-likelihood over held-out images."""
    evaluation: tuple[Figure, ...]
    """Quality measured on held-out images."""
    round_trip_error: float
    """Largest `|inverse(transform(z)) - z|` measured on held-out latents."""
    graphs: tuple[Graph, ...]
    recipe: str
    """How it was trained."""
    data_set: str
    """What it was trained on."""
    created: str
    """When it was exported, ISO 8601, UTC."""
    limits: Limits
    """What a call may ask for."""

    def split(self, factors: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Views of `factors`, `(..., D)`, by the name of the factor."""
        return {part.name: factors[..., part.start : part.start + part.size] for part in self.factors}


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model and how to reach it."""

    application: str
    """Name to give to the client as `application`."""
    state: str
    """RUNNING, or what keeps it from being so."""
    model: Model | None
    """What is served; None where the application did not answer."""
