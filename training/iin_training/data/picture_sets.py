"""Sets of real pictures with labels, and the grey ones that come with a test set of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from iin_training.data.digests import digest_of
from iin_training.data.digits import load_digits

__all__ = ["PictureSet", "digest_pictures", "load_grey", "pad_pictures"]

GREY_VALUES = {
    "mnist": ("digit", tuple(str(digit) for digit in range(10))),
    "fashion": (
        "clothing",
        ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """Pictures of one size with labels: those to train on, and those that no training step sees."""

    name: str
    """Name of the data set."""
    sha256: str
    """Hexadecimal digest over all pictures and labels before they were split; see `digest_pictures`."""
    images: NDArray[np.uint8]
    """Training pictures, levels of 0 to 255: `(N, H, W)` grey, or `(N, H, W, 3)` RGB."""
    labels: Mapping[str, NDArray[np.int64]]
    """Of each concept, the value that every training picture shows, `(N,)`: positions in `values[concept]`."""
    held_out_images: NDArray[np.uint8]
    """Held-out pictures, `(M, H, W)` or `(M, H, W, 3)`."""
    held_out_labels: Mapping[str, NDArray[np.int64]]
    """Their values of the same concepts, `(M,)`."""
    values: Mapping[str, tuple[str, ...]]
    """Of each concept, what its values are called."""


def load_grey(source: Literal["mnist", "fashion"]) -> PictureSet:
    """60,000 grey pictures and 10,000 held out, 32x32 on black: digits, or pieces of clothing; fetched on first use."""
    data = load_digits(None, held_out=0, seed=0, source=source)
    concept, names = GREY_VALUES[source]
    return PictureSet(
        name=data.name,
        sha256=data.sha256,
        images=pad_pictures(data.images),
        labels={concept: data.labels},
        held_out_images=pad_pictures(data.held_out_images),
        held_out_labels={concept: data.held_out_labels},
        values={concept: names},
    )


def pad_pictures(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures of 28x28, `(N, 28, 28)`, centred on black of 32x32: a power of two, as the autoencoder wants it."""
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))


def digest_pictures(images: NDArray[np.uint8], labels: Mapping[str, NDArray[np.int64]]) -> str:
    """Hexadecimal sha256 over pictures and the labels of every concept."""
    parts = (part for concept in labels for part in (concept, torch.from_numpy(labels[concept])))
    return digest_of(torch.from_numpy(images), *parts)
