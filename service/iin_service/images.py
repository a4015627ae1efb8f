"""Pictures in files to arrays in the model's range, and back; nothing a caller sends is trusted."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from iin_bundle import ImageSpec
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from iin_service.errors import InvalidInput

__all__ = ["MAX_PIXELS", "decode_image", "encode_png", "inspect_image"]

MAX_PIXELS = 16_777_216  # of the files of one call together: 4096 x 4096, decoded 50 MB
FORMATS = ("PNG", "JPEG", "WEBP")
# 16-bit and float pictures would be clipped, not scaled, by a conversion to 8 bits.
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def inspect_image(data: bytes, spec: ImageSpec, *, resize: bool, field: str) -> int:
    """Check what a file declares before any pixel is decoded; returns its number of pixels.

    Raises:
        InvalidInput: for `field`, where the file is not a PNG, JPEG or WebP picture of 8 bits, is too large,
            or is of another size and `resize` is false.

    """
    if not data:
        raise InvalidInput(field, "a PNG, JPEG or WebP file", "0 bytes")
    with _open(data, field) as image:
        size, wanted = (image.width, image.height), (spec.width, spec.height)
        # A picture that EXIF turns on its side swaps its sides.
        if not resize and wanted not in (size, size[::-1]):
            raise _wrong_size(field, wanted, size)
        if image.mode in DEEP_MODES:
            raise InvalidInput(field, "8 bits a channel", f"mode {image.mode}", "convert it to 8 bits")
        if (frames := getattr(image, "n_frames", 1)) > 1:
            raise InvalidInput(field, "a still picture", f"{frames} frames")
        return image.width * image.height


def decode_image(data: bytes, spec: ImageSpec, *, resize: bool, field: str) -> NDArray[np.float32]:
    """A file that `inspect_image` let pass as `(C, H, W)` in the model's range.

    Rotation marked in EXIF is applied, transparency is laid on black.

    Raises:
        InvalidInput: for `field`, where the file is not whole, or of another size and `resize` is false.

    """
    with _open(data, field) as image:
        try:
            pixels = _on_black(ImageOps.exif_transpose(image)).convert("RGB" if spec.channels == 3 else "L")
        except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
            raise _unreadable(data, field, error) from error
    if pixels.size != (spec.width, spec.height):
        if not resize:
            raise _wrong_size(field, (spec.width, spec.height), pixels.size)
        pixels = pixels.resize((spec.width, spec.height), Image.Resampling.BICUBIC)
    values = np.asarray(pixels, dtype=np.float32).reshape(spec.height, spec.width, spec.channels)
    values = values.transpose(2, 0, 1) * ((spec.maximum - spec.minimum) / 255) + spec.minimum
    return np.ascontiguousarray(values, dtype=np.float32)


@contextmanager
def _open(data: bytes, field: str) -> Iterator[Image.Image]:
    """The picture in a file, its pixels not decoded yet."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # callers count pixels themselves
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise InvalidInput(field, f"at most {MAX_PIXELS} pixels", "far more", "send a smaller picture") from error
    except Exception as error:
        raise _unreadable(data, field, error) from error
    with image:
        yield image


def _unreadable(data: bytes, field: str, error: Exception) -> InvalidInput:
    reason = "they are none of these" if isinstance(error, UnidentifiedImageError) else str(error)
    return InvalidInput(field, "a whole PNG, JPEG or WebP file", f"{len(data)} bytes that do not decode ({reason})")


def _wrong_size(field: str, wanted: tuple[int, int], given: tuple[int, int]) -> InvalidInput:
    return InvalidInput(
        field,
        f"a picture of {wanted[0]}x{wanted[1]} pixels",
        f"{given[0]}x{given[1]}",
        "set resize to have it resized",
    )


def _on_black(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, (0, 0, 0, 255)), layered)


def encode_png(image: NDArray[np.float32], spec: ImageSpec) -> bytes:
    """An image `(C, H, W)` as a PNG file; values outside the model's range are clipped."""
    scaled = (image - spec.minimum) * (255 / (spec.maximum - spec.minimum))
    pixels = np.clip(np.rint(scaled), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if spec.channels == 1 else pixels))
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
