"""Pictures in files to 8-bit levels of one size, and the check that a whole list of files holds such pictures."""

import functools
import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from rich.console import Console

from iin_training.data.checked_files import CheckedFiles, stamp_of
from iin_training.progress import late_bar

__all__ = ["ENDINGS", "Checked", "PictureShape", "check_pictures", "decode_levels", "decoders"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# 16-bit and float pictures would be clipped, not scaled, by a conversion to 8 bits; those in colour have no mode.
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
TURNS = {  # that set a picture upright, by its orientation in EXIF
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DECODERS = 8  # threads; Pillow decodes without Python's lock
SUBMITTED = 1024  # files handed to the threads at a time


@dataclass(frozen=True)
class PictureShape:
    """What every picture is brought to."""

    channels: int
    """1 for grey, 3 for RGB."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""

    def __post_init__(self) -> None:
        """Refuse what no picture can be."""
        if self.channels not in (1, 3):
            raise ValueError(f"channels: expected 1 (grey) or 3 (RGB), got {self.channels}")
        if min(self.height, self.width) < 1:
            raise ValueError(f"size: expected a height and width of at least 1, got {self.height}x{self.width}")


@dataclass(frozen=True)
class Checked:
    """What a look at one file found."""

    sha256: bytes
    """Digest of its contents; empty where it could not be read."""
    fault: str | None
    """Why it is no picture that can be trained on; None where it is one."""


@functools.cache
def decoders() -> ThreadPoolExecutor:
    """The threads that read and decode pictures."""
    return ThreadPoolExecutor(min(DECODERS, os.cpu_count() or 1), thread_name_prefix="pictures")


# Threads do not follow into a process forked from this one; it starts its own.
os.register_at_fork(after_in_child=decoders.cache_clear)


def decode_levels(data: bytes, shape: PictureShape) -> NDArray[np.uint8]:
    """The picture in a file's bytes as `(C, H, W)` levels of 0 to 255.

    Rotation marked in EXIF is applied and transparency laid on black; then the picture is resized bicubically
    until its short side fits, and cropped around its centre. Of an animation the first frame counts.

    Raises:
        ValueError: where the bytes are no whole picture of 8 bits a channel.

    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # In colour by how it is to be unpacked; that of a BMP is five or six bits a channel.
            if image.mode in DEEP_MODES or (";16" in str(image.tile) and image.format != "BMP"):
                raise ValueError("expected 8 bits a channel, got more; convert it to 8 bits")
            # A large JPEG is decoded at a fraction of its size, at least twice what is asked for.
            side = 2 * max(shape.height, shape.width)
            image.draft(None, (side, side))
            image.load()
            mode = "RGB" if shape.channels == 3 else "L"
            flat = _on_black(_upright(image))
            flat = flat if flat.mode == mode else flat.convert(mode)
            flat = ImageOps.fit(flat, (shape.width, shape.height), Image.Resampling.BICUBIC)
    except ValueError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(
            f"expected a picture ({', '.join(FORMATS)}), got {len(data)} bytes of something else"
        ) from error
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise ValueError(f"expected a whole picture: {error}") from error
    levels = np.frombuffer(flat.tobytes(), np.uint8).reshape(shape.height, shape.width, shape.channels)
    return levels.transpose(2, 0, 1)


def _upright(image: Image.Image) -> Image.Image:
    try:  # ImageOps.exif_transpose also writes the EXIF anew, and fails where that is odd
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # nearly anything, on EXIF that is odd; the pixels are whole
        return image
    return image if turn is None else image.transpose(turn)


def _on_black(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, (0, 0, 0, 255)), layered)


def check_pictures(paths: Sequence[Path], shape: PictureShape, console: Console) -> list[Checked]:
    """Read and decode every file, in parallel; a progress bar appears where that takes long.

    Files that an earlier check found whole and that have not changed since are not read again.
    """

    def check(path: Path, known: bytes | None) -> Checked:
        if known is not None:
            return Checked(known, None)
        try:
            data = path.read_bytes()
        except OSError as error:
            return Checked(b"", error.strerror or str(error))
        try:
            decode_levels(data, shape)
        except ValueError as error:
            return Checked(b"", str(error))
        return Checked(hashlib.sha256(data).digest(), None)

    found, before = list[Checked](), CheckedFiles()
    with closing(before), late_bar("checking pictures", len(paths), console) as advance:
        for start in range(0, len(paths), SUBMITTED):
            some = paths[start : start + SUBMITTED]
            stamps = list(decoders().map(stamp_of, some))
            known = before.known(some, stamps)
            for checked in decoders().map(check, some, known):
                found.append(checked)
                advance(1)
            rows = zip(some, stamps, known, found[start:], strict=True)
            before.keep((p, s, now.sha256) for p, s, old, now in rows if s and old is None and not now.fault)
    return found
