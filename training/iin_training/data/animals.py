"""Silhouettes of ten animals: every picture once, some of them held out."""

import gzip
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iin_training.data.fetch import Package, fetch
from iin_training.data.picture_sets import PictureSet, digest_pictures, pad_pictures

__all__ = ["load_animals"]

PACKAGE = Package("pip", "animal-mnist==0.4", "aeebf3d9de4552d6fd2d5701424e1a5b9020f8e5115d68df9db252f2f53ce2ce")
FOLDER = "animal_mnist/data/Animal_MNIST/"
PICTURES, LABELS = FOLDER + "animal_data_version_3.gz", FOLDER + "animal_label_version_3.gz"
ANIMALS = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")


def load_animals(*, held_out: int, seed: int) -> PictureSet:
    """White animals on black, 32x32 grey, the concept `animal` of ten values; fetched on first use.

    Of the package's 10,000 pictures 9,716 are different; each is kept once (none of them bears two labels).

    Args:
        held_out: how many pictures to set aside, as many of each animal as of any other.
        seed: decides which ones.

    """
    folder = fetch(PACKAGE, [PICTURES, LABELS])
    images = _buffer(folder / Path(PICTURES).name, np.uint8).reshape(-1, 28, 28)
    labels = _buffer(folder / Path(LABELS).name, np.dtype("<i8")).astype(np.int64)
    once = np.sort(np.unique(images.reshape(len(images), -1), axis=0, return_index=True)[1])
    images, labels = pad_pictures(images[once]), labels[once]
    most = len(ANIMALS) * (int(np.bincount(labels).min()) - 1)
    if not 0 < held_out <= most or held_out % len(ANIMALS):
        raise ValueError(
            f"held_out: expected a multiple of {len(ANIMALS)}, as many pictures of each animal, from {len(ANIMALS)} to "
            f"{most}, got {held_out}"
        )
    order = np.random.default_rng(seed).permutation(len(images))
    each = held_out // len(ANIMALS)
    aside = np.sort(np.concatenate([order[labels[order] == animal][:each] for animal in range(len(ANIMALS))]))
    rest = np.setdiff1d(order, aside)
    return PictureSet(
        name=PACKAGE.name,
        sha256=digest_pictures(images, {"animal": labels}),
        images=images[rest],
        labels={"animal": labels[rest]},
        held_out_images=images[aside],
        held_out_labels={"animal": labels[aside]},
        values={"animal": ANIMALS},
    )


def _buffer(path: Path, dtype: Any) -> NDArray[Any]:
    """The values of one array that was pickled: its longest byte string. Nothing of the pickle is executed."""
    with gzip.open(path) as file:
        strings = [argument for _, argument, _ in pickletools.genops(file.read()) if isinstance(argument, bytes)]
    return np.frombuffer(max(strings, key=len), dtype)
