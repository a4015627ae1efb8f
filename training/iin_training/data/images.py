"""Images to train on, wherever they are: files read as they are needed, or an array in memory."""

import functools
import hashlib
import math
import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from iin_training.data.augmentation import STILL, Augmentation, jitter
from iin_training.data.picture_files import ENDINGS, PictureShape, check_pictures, decode_levels, decoders

__all__ = [
    "ImageArray",
    "ImageFiles",
    "Images",
    "Pictures",
    "check_is_images",
    "image_folder",
    "labels_of_folders",
    "names_of",
    "printable",
]

NAMED = 5  # broken files that a message names


class Images(Protocol):
    """Images by number, loaded a batch at a time.

    They may also have a method `digest() -> str`: a hexadecimal sha256 over all of them and how they are loaded.
    Without one, all of them are loaded once, so they may not change as long as they live.
    And a property `still: bool`: whether `load` gives the same with a generator as without, and draws nothing from
    it. Latents of still images are computed once; without the property every step computes them anew.
    """

    def __len__(self) -> int: ...

    def load(self, indices: Tensor, generator: torch.Generator | None) -> Tensor:
        """Load a batch.

        Args:
            indices: which images, `(n,)` int64 from 0; any order, repeats allowed.
            generator: decides the augmentation; None loads the images as they are. From the same state, the
                n-th image of two batches of one length is distorted alike, whichever images they are.

        Returns:
            Images `(n, C, H, W)`, float32 in the model's range, contiguous in this order.

        """
        ...

    def name(self, index: int) -> str:
        """What lists and tables of the user's call the image `index`."""
        ...


class Pictures(Images):
    """Images of 8 bits a channel, converted a batch at a time: in files, or in an array."""

    def __init__(self, shape: PictureShape, value_range: tuple[float, float], augmentation: Augmentation) -> None:
        """Convert levels 0 and 255 to the ends of `value_range`, after `augmentation`."""
        low, high = value_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(
                f"value_range: expected two finite numbers, the smaller one first, got {low:g} and {high:g}"
            )
        self.shape, self.value_range, self.augmentation = shape, value_range, augmentation

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Digest over all images, whatever they are converted to; of files over their names too."""

    @property
    @abstractmethod
    def contents(self) -> tuple[bytes, ...]:
        """Digest of each image by itself, `(N,)`."""

    @abstractmethod
    def _read(self, indices: Tensor, levels: NDArray[np.uint8]) -> None:
        """Write the images `indices`, `(n,)`, into `levels`, `(n, C, H, W)`."""

    def load(self, indices: Tensor, generator: torch.Generator | None) -> Tensor:
        """Load a batch, see `Images.load`; `ValueError` where a file can no longer be read."""
        levels = np.empty((len(indices), self.shape.channels, self.shape.height, self.shape.width), np.uint8)
        self._read(indices, levels)
        images = torch.from_numpy(levels).float() / 255
        if generator is not None:
            images = jitter(images, self.augmentation, generator)
        low, high = self.value_range
        return images * (high - low) + low

    @property
    def still(self) -> bool:
        """Whether nothing is distorted."""
        return self.augmentation.nothing

    def digest(self) -> str:
        """Hexadecimal sha256 over all images and how they are loaded: shape, range and augmentation."""
        sizes = (int(self.shape.channels), int(self.shape.height), int(self.shape.width))
        limits = tuple(float(number) for number in (*self.value_range, *astuple(self.augmentation)))
        return hashlib.sha256(repr((self.sha256, sizes, limits)).encode()).hexdigest()


class ImageFiles(Pictures):
    """Picture files, read and decoded when a batch asks for them; none is kept in memory."""

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        size: tuple[int, int],
        channels: int = 3,
        value_range: tuple[float, float] = (-1.0, 1.0),
        folder: str | Path | None = None,
        augmentation: Augmentation = STILL,
        max_broken: float = 0.01,
        console: Console | None = None,
    ) -> None:
        """Check every file: it is read and decoded, in parallel, unless it is as an earlier check found it.

        Args:
            paths: the files, in the order of their numbers. Rotation marked in EXIF is applied, transparency
                laid on black; then the picture is resized bicubically until its short side fits, and cropped
                around its centre.
            size: height and width of the images, pixels.
            channels: 1 for grey, 3 for RGB.
            value_range: values of levels 0 and 255 of a channel.
            folder: names of images are paths relative to this folder, with `/`; None takes the deepest folder that
                holds all files.
            augmentation: random distortion of what is loaded with a generator.
            max_broken: largest share of files in [0, 1) that may be missing or unreadable. They are left out, with a
                warning; look at `kept` where labels come by position.
            console: shows progress and the warning.

        Raises:
            ValueError: where too many files are broken, naming the first ones, or a setting is impossible.

        """
        if isinstance(paths, str | Path):
            raise ValueError(f"paths: expected a list of files, got {paths} alone; list a folder by image_folder(...)")
        if np.shape(size) != (2,):
            raise ValueError(f"size: expected height and width, such as (28, 28), got {size}")
        super().__init__(PictureShape(channels, *size), value_range, augmentation)
        console = console or Console()
        if not len(paths):
            raise ValueError("paths: expected at least one picture file, got none")
        if not 0 <= max_broken < 1:
            raise ValueError(f"max_broken: expected a share in [0, 1), got {max_broken}")
        files = [Path(path) for path in paths]
        names = _names(files, folder)
        checked = check_pictures(files, self.shape, console)
        broken = [position for position, found in enumerate(checked) if found.fault]
        if broken:
            faults = [f"  {printable(files[position])}: {checked[position].fault}" for position in broken[:NAMED]]
            faults += [f"  and {len(broken) - NAMED} more"] if len(broken) > NAMED else []
            told = f"{len(broken)} of {len(files)} files are missing or unreadable"
            if len(broken) == len(files) or len(broken) > max_broken * len(files):
                raise ValueError(
                    f"paths: expected at most a share of {max_broken:g} to be broken, but {told}:\n"
                    + "\n".join(faults)
                    + "\nrepair or remove them, or raise max_broken"
                )
            lines = [f"warning: {told} and left out:", *faults]
            console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
        self.kept: NDArray[np.int64] = np.array([p for p, found in enumerate(checked) if not found.fault], np.int64)
        """Positions of these images among the paths given, `(N,)` ascending."""
        self.left_out = frozenset(names[position] for position in broken)
        """Names of the broken files."""
        self.paths = tuple(files[position] for position in self.kept)
        """The files, by number of the image."""
        self._contents: tuple[bytes, ...] = tuple(checked[position].sha256 for position in self.kept)
        self._names: tuple[str, ...] = tuple(names[position] for position in self.kept)
        digest = hashlib.sha256()
        for name, position in zip(self._names, self.kept, strict=True):
            digest.update(name.encode(errors="surrogateescape") + b"\0" + checked[position].sha256)
        self._sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def sha256(self) -> str:
        """Digest over names and contents of all files."""
        return self._sha256

    @property
    def contents(self) -> tuple[bytes, ...]:
        """Digest of each file, `(N,)`, as it was when it was checked."""
        return self._contents

    def name(self, index: int) -> str:
        """Path relative to the folder, with `/`."""
        return self._names[index]

    def _read(self, indices: Tensor, levels: NDArray[np.uint8]) -> None:
        for row, pixels in zip(levels, decoders().map(self._decode, indices.tolist()), strict=True):
            row[:] = pixels

    def _decode(self, index: int) -> NDArray[np.uint8]:
        path = self.paths[index]
        try:
            return decode_levels(path.read_bytes(), self.shape)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: could be read when it was checked, and no longer can: {error}") from error


class ImageArray(Pictures):
    """Images in memory as bytes, converted a batch at a time; their names are their numbers."""

    def __init__(
        self,
        images: NDArray[np.uint8] | Tensor,
        *,
        value_range: tuple[float, float] = (-1.0, 1.0),
        augmentation: Augmentation = STILL,
    ) -> None:
        """Keep `images`, `(N, H, W)` or `(N, H, W, C)` with 1 or 3 channels, as they are (not copied).

        Args:
            images: levels of 0 to 255; a memory-mapped array stays on the disk. A tensor on the CPU will do.
            value_range: values of levels 0 and 255 of a channel.
            augmentation: random distortion of what is loaded with a generator.

        """
        images = np.asarray(images)
        fits = images.ndim in (3, 4) and images.shape[3:] in ((), (1,), (3,)) and len(images)
        if images.dtype != np.uint8 or not fits:
            raise ValueError(
                "images: expected uint8 of (N, H, W) or (N, H, W, C) with N at least 1 and C = 1 (grey) or 3 (RGB), "
                f"got {images.dtype} of {images.shape}; scale values to 0 to 255, and put channels last, as with "
                ".permute(0, 2, 3, 1) of a tensor"
            )
        self._images = images if images.ndim == 4 else images[..., None]
        height, width, channels = self._images.shape[1:]
        super().__init__(PictureShape(channels, height, width), value_range, augmentation)

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        """The number of the image."""
        return str(range(len(self))[index])

    def _read(self, indices: Tensor, levels: NDArray[np.uint8]) -> None:
        levels[:] = self._images[indices.numpy()].transpose(0, 3, 1, 2)

    @functools.cached_property
    def contents(self) -> tuple[bytes, ...]:
        """Digest of each image by itself, `(N,)`, as they are when it is first asked for."""
        return tuple(hashlib.sha256(image.tobytes()).digest() for image in self._images)

    @functools.cached_property
    def sha256(self) -> str:
        """Digest over shape and contents of all images, as they are when it is first asked for."""
        digest = hashlib.sha256(str(self._images.shape).encode())
        for image in self._images:
            digest.update(image.tobytes())
        return digest.hexdigest()


def image_folder(folder: str | Path) -> list[Path]:
    """All pictures in a folder and the folders in it, sorted by their paths.

    Pictures are told by the ends of their names (.png, .jpg, ...). What is hidden (starts with a dot) is passed over,
    and links to folders are not followed.

    Raises:
        ValueError: where there is no such folder, or no picture in it.

    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"folder: expected a folder with pictures, got {folder}, which is none")
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = [name for name in files if not name.startswith(".") and name.lower().endswith(ENDINGS)]
        found += [Path(parent, name) for name in shown]
    if not found:
        raise ValueError(f"folder: expected pictures ({', '.join(ENDINGS)}) in {folder}, found none")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def labels_of_folders(images: Images) -> list[str]:
    """Label of each image, `(N,)`: the first folder of its name, as `cat` for `cat/indoors/1.png`.

    Raises:
        ValueError: where an image lies in no folder, or all in the same.

    """
    names = names_of(images)
    outside = [name for name in names if "/" not in name]
    if outside:
        raise ValueError(
            f"images: expected every name to start with the folder of its class, as cat/1.png, got {outside[0]} and "
            f"{len(outside) - 1} more without; give ImageFiles the folder that holds the classes' folders"
        )
    labels = [name.split("/", 1)[0] for name in names]
    if len(set(labels)) == 1:
        raise ValueError(
            f"images: expected folders of at least two classes, got {labels[0]} only; "
            "give ImageFiles the folder that holds the classes' folders"
        )
    return labels


def check_is_images(images: object) -> None:
    """Refuse what is no source of images, such as a list of paths, where `Images` are expected."""
    if not hasattr(images, "load"):
        raise ValueError(
            f"images: expected ImageFiles, an ImageArray or a class of your own with load and name, got "
            f"{type(images).__name__}; give paths to ImageFiles, and pictures in memory to ImageArray"
        )


def names_of(images: Images) -> list[str]:
    """Name of each image, `(N,)`; `ValueError` where `images` are none, see `check_is_images`."""
    check_is_images(images)
    return [images.name(index) for index in range(len(images))]


def printable(name: str | Path) -> str:
    """A file's name as a terminal can show it: bytes that are no UTF-8 as backslash escapes."""
    return str(name).encode(errors="backslashreplace").decode()


def _names(paths: Sequence[Path], folder: str | Path | None) -> list[str]:
    absolute = [os.path.abspath(path) for path in paths]
    if folder is None:
        prefix = os.path.commonpath({os.path.dirname(path) for path in absolute})
    else:
        prefix = os.path.abspath(folder)
    prefix = os.path.join(prefix, "")
    for path in absolute:
        if not path.startswith(prefix):
            raise ValueError(f"folder: expected the folder that holds every file, got {folder}, which has no {path}")
    return [path[len(prefix) :].replace(os.sep, "/") for path in absolute]
