"""Pictures in files to arrays in the model's range, and back; nothing a caller sends is trusted."""

import functools
import io

import numpy as np
from iin_bundle import ImageSpec
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from iin_service.errors import InvalidInput, short

__all__ = ["MAX_PIXELS", "decode_picture", "encode_picture", "open_picture"]

MAX_PIXELS = 16_777_216  # of the files of one call together: 4096 x 4096, decoded 50 MB
Image.MAX_IMAGE_PIXELS = None  # counted here, before any is decoded
PngImagePlugin.MAX_TEXT_MEMORY = PngImagePlugin.MAX_TEXT_CHUNK  # nobody reads a file's texts; Pillow inflates 64 MB
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
FORMATS = ("PNG", "JPEG", "WEBP")
# 16-bit and float pictures would be clipped, not scaled, by a conversion to 8 bits.
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def open_picture(data: bytes, spec: ImageSpec, *, resize: bool, field: str) -> Image.Image:
    """The picture in a file with what it declares checked, no pixel decoded yet.

    Raises:
        InvalidInput: for `field`, where the file is not a PNG, JPEG or WebP picture of 8 bits, is too large,
            or is of another size and `resize` is false.

    """
    if not data:
        raise InvalidInput(field, "a PNG, JPEG or WebP file", "0 bytes")
    try:
        if data.startswith(PNG_SIGNATURE):  # spares Pillow's search for the format
            image: Image.Image = PngImagePlugin.PngImageFile(io.BytesIO(data))
        else:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:
        raise _unreadable(len(data), field, error) from error
    size, wanted = (image.width, image.height), (spec.width, spec.height)
    if size[0] * size[1] > MAX_PIXELS:
        raise InvalidInput(field, f"at most {MAX_PIXELS} pixels", f"{size[0]}x{size[1]}", "send a smaller picture")
    if not resize and wanted not in (size, size[::-1]):  # EXIF may turn it on its side
        raise _wrong_size(field, wanted, size)
    if image.mode in DEEP_MODES:
        raise InvalidInput(field, "8 bits a channel", f"mode {image.mode}", "convert it to 8 bits")
    # What some cameras write as JPEG, with previews behind the picture.
    if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
        raise InvalidInput(field, "a still picture", f"{frames} frames")
    return image


def decode_picture(image: Image.Image, spec: ImageSpec, *, resize: bool, field: str) -> NDArray[np.float32]:
    """An opened picture as `(C, H, W)` in the model's range; closes it.

    Rotation marked in EXIF is applied, transparency is laid on black.

    Raises:
        InvalidInput: for `field`, where the file is not whole, or of another size and `resize` is false.

    """
    mode = "RGB" if spec.channels == 3 else "L"
    with image:
        try:
            image.load()
            if image.info or image.format != "PNG":  # a bare PNG has nothing that could turn it
                ImageOps.exif_transpose(image, in_place=True)
            pixels = _on_black(image)
            pixels = pixels if pixels.mode == mode else pixels.convert(mode)
        except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
            raise _unreadable(None, field, error) from error
        if pixels.size != (spec.width, spec.height):
            if not resize:
                raise _wrong_size(field, (spec.width, spec.height), pixels.size)
            pixels = pixels.resize((spec.width, spec.height), Image.Resampling.BICUBIC)
        levels = np.frombuffer(pixels.tobytes(), np.uint8).reshape(spec.height, spec.width, spec.channels)
    return _values_of_levels(spec)[np.ascontiguousarray(levels.transpose(2, 0, 1))]


@functools.cache
def _values_of_levels(spec: ImageSpec) -> NDArray[np.float32]:
    """Value in the model's range of each of the 256 levels of a channel."""
    return np.linspace(spec.minimum, spec.maximum, 256, dtype=np.float32)


def _unreadable(size: int | None, field: str, error: Exception) -> InvalidInput:
    reason = "they are none of these" if isinstance(error, UnidentifiedImageError) else short(str(error), 100)
    given = "bytes" if size is None else f"{size} bytes"
    return InvalidInput(field, "a whole PNG, JPEG or WebP file", f"{given} that do not decode ({reason})")


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


SAVE: dict[str, dict[str, object]] = {
    "PNG": {"compress_level": 1},
    "JPEG": {"quality": 95, "subsampling": 0},  # colours in full: pictures are small and their edges coloured
    "WEBP": {"lossless": True, "method": 2},
}


def encode_picture(image: NDArray[np.float32], spec: ImageSpec, format: str) -> bytes:
    """An image `(C, H, W)` as a file of a format in `SAVE`; values outside the model's range are clipped."""
    scaled = (image - spec.minimum) * (255 / (spec.maximum - spec.minimum))
    pixels = np.clip(np.rint(scaled), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if spec.channels == 1 else pixels))
    file = io.BytesIO()
    picture.save(file, format, **SAVE[format])
    return file.getvalue()
