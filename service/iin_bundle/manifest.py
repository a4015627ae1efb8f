"""What a bundle says about itself: the contents of `manifest.json`."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from iin_bundle.factors import FactorLayout, FactorSlice

__all__ = [
    "BATCH_AXIS",
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "Figure",
    "FileEntry",
    "Graph",
    "ImageSpec",
    "LogLikelihoodQuantiles",
    "Manifest",
    "Provenance",
    "TensorSpec",
    "Tolerances",
]

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
BATCH_AXIS = "batch"


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output of a graph."""

    name: str
    """Name inside the ONNX graph."""
    dtype: str
    """numpy name of the element type; `float32` everywhere in format 1."""
    shape: tuple[str | int, ...]
    """First axis `batch` (any size), the others fixed."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file of the bundle and what it must contain."""

    path: str
    """Relative to the bundle, with forward slashes, never leaving it."""
    sha256: str
    """Lower-case hexadecimal digest of the contents."""
    bytes: int
    """Length of the file."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One ONNX graph."""

    file: FileEntry
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    external_data: tuple[FileEntry, ...] = ()
    """Files with tensors too large for the graph's own file, every one that it refers to."""


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """The images that the encoder takes and the decoder gives."""

    layout: str
    """Always `NCHW` in format 1."""
    channels: int
    """1 (grey) or 3 (red, green, blue)."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    minimum: float
    """Value of black, sRGB 0."""
    maximum: float
    """Value of full intensity, sRGB 255."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of one image."""
        return (self.channels, self.height, self.width)


@dataclass(frozen=True, kw_only=True)
class LogLikelihoodQuantiles:
    """Distribution of the log-likelihood over held-out images."""

    probabilities: tuple[float, ...]
    """Increasing, in [0, 1]."""
    values: tuple[float, ...]
    """Log-likelihood at each probability, nats, non-decreasing."""

    def quantile(self, log_likelihood: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of held-out images less likely than each value given, `(N,)` in [0, 1]."""
        return np.interp(log_likelihood, *self._curve)

    @cached_property
    def _curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`values` and `probabilities` as arrays, which every batch needs."""
        return np.array(self.values), np.array(self.probabilities)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured quality."""

    value: float
    """What was measured."""
    meaning: str
    """How it was measured, in a sentence, with its unit."""
    ceiling: float | None = None
    """The best that the first stage allows, measured the same way."""
    floor: float | None = None
    """What chance gives, measured the same way."""


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """How far results may be from the recorded ones, maximum absolute difference."""

    golden: float
    """Any graph's output against `golden.npz`, relative to the largest magnitude of that output or 1."""
    round_trip: float
    """`inverse(transform(z))` against `z`."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the bundle comes from."""

    recipe: str
    seed: int
    git_commit: str
    """Commit of the training code, with `+changes` where the checkout differed from it; `unknown` outside one."""
    created: str
    """UTC time of the export, ISO 8601."""
    versions: dict[str, str]
    """Library name to version."""
    data_set: str
    data_set_sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything the service must know before it runs a graph."""

    format_version: int
    name: str
    """Name of the model, as callers see it."""
    version: str
    """Version of the model, chosen by whoever exports it."""
    family: str
    """Kind of model; `iin` is an invertible interpretation network."""
    graphs: dict[str, Graph]
    """By role: encoder, transform, inverse, and where they exist decoder and head."""
    image: ImageSpec
    latent_shape: tuple[int, ...]
    """Shape of one latent: `(D,)`, or `(C, H, W)` for spatial latents."""
    factors: tuple[FactorSlice, ...]
    """Slices that cover `z~` exactly once; one is called `residual`."""
    log_likelihood_quantiles: LogLikelihoodQuantiles
    round_trip_error: float
    """Measured maximum of `|inverse(transform(z)) - z|` over held-out latents."""
    tolerances: Tolerances
    golden: FileEntry
    """`golden.npz`: a few inputs with every graph's outputs, keys `role/tensor name`."""
    provenance: Provenance
    evaluation: dict[str, Figure] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """D, the number of dimensions of a factor vector."""
        return int(np.prod(self.latent_shape))

    @property
    def layout(self) -> FactorLayout:
        """The factors as a checked layout."""
        return FactorLayout(self.factors, self.size)
