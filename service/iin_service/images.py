"""Pictures in files to arrays in the model's range, and back; nothing a caller sends is trusted."""

import functools
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np
from iin_bundle import ImageSpec
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError, WebPImagePlugin

from iin_service.errors import InvalidInput, short

__all__ = ["MAX_PIXELS", "decode_picture", "encode_picture", "open_picture"]

# Of all files of a call: 4096 x 4096. One such picture takes a decoder 64 MiB (PNG), 160 (progressive JPEG), 260 (PNG
# or WebP with transparency) or 325 (such a WebP that EXIF turns).
MAX_PIXELS = 16_777_216
# The limit of JPEG. For a side of millions Pillow's table of rows, or of weights to resize, takes 600 MiB more.
MAX_SIDE = 65_535
Image.MAX_IMAGE_PIXELS = None  # counted here, before any is decoded
warnings.filterwarnings("ignore", module="PIL")  # about odd files: Python prints and keeps every new text
PNG_SIGNATURE, JPEG_SIGNATURE = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# Imported with this module: at the first WebP Pillow would import all plugins, and hold the event loop for 0.1 s.
PLUGINS = (PngImagePlugin.PngImageFile, JpegImagePlugin.JpegImageFile, WebPImagePlugin.WebPImageFile)
FORMATS = tuple(one.format for one in PLUGINS)
# Pillow gets only these chunks of a PNG: nobody reads the others, and a profile or text may inflate to a megabyte.
CHUNKS_READ = {b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND"}
# Each chunk takes Pillow microseconds, however small it is; 64 MiB written by libpng have 8,192 chunks.
MAX_CHUNKS = 16_384
# A scan of a few bytes takes as long as the whole picture; encoders write 10 to 20, and segments of 64 kB.
MAX_SCANS, MAX_SEGMENTS = 100, 1_000
MAX_EXIF_SEGMENTS = 16  # each makes Pillow copy all before it
# Markers of segments that state their length; the data of a scan has none. The end marker counts only after a scan.
SEGMENT = re.compile(rb"\xff([\xc0-\xc7\xc9-\xcf\xda-\xef\xfe])")
SEGMENT_OR_END = re.compile(rb"\xff([\xc0-\xc7\xc9-\xcf\xd9-\xef\xfe])")
SCAN, END, EXIF = b"\xda", b"\xd9", re.compile(rb"\xff\xe1..Exif\0\0", re.DOTALL)
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type of a PNG
# First column and row of each pass of an interlaced PNG, and the steps to the next ones.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
INFLATED_AT_ONCE = 1 << 20
TURNS = {  # that set a picture upright, by its orientation in EXIF
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_picture(data: bytes, spec: ImageSpec, *, resize: bool, field: str) -> Image.Image:
    """The picture in a file with what it declares checked, no pixel decoded yet.

    Raises:
        InvalidInput: for `field`, where the file is not a PNG, JPEG or WebP picture of 8 bits, is too large,
            has too many parts, or is of another size and `resize` is false.

    """
    if not data:
        raise InvalidInput(field, "a PNG, JPEG or WebP file", "0 bytes")
    is_png = data.startswith(PNG_SIGNATURE)
    if data.startswith(JPEG_SIGNATURE):
        _check_segments(data, field)
    file = io.BytesIO(_trimmed(data, field) if is_png else data)
    try:
        if is_png:  # spares Pillow's search for the format
            image: Image.Image = PngImagePlugin.PngImageFile(file)
        else:
            image = Image.open(file, formats=FORMATS)
    except Exception as error:
        raise _unreadable(len(data), field, error) from error
    size, wanted = (image.width, image.height), (spec.width, spec.height)
    if size[0] * size[1] > MAX_PIXELS:
        raise InvalidInput(field, f"at most {MAX_PIXELS} pixels", f"{size[0]}x{size[1]}", "send a smaller picture")
    if max(size) > MAX_SIDE:
        raise InvalidInput(field, f"at most {MAX_SIDE} pixels a side", f"{size[0]}x{size[1]}", "cut it into pieces")
    if not resize and wanted not in (size, size[::-1]):  # EXIF may turn it on its side
        raise _wrong_size(field, wanted, size)
    # Of these formats PNG alone has more; Pillow would clip them in a grey picture, and cut them in another.
    if isinstance(image, PngImagePlugin.PngImageFile) and ";16" in str(image.tile):  # by how it is to be unpacked
        raise InvalidInput(field, "8 bits a channel", "16", "convert it to 8 bits")
    # What some cameras write as JPEG, with previews behind the picture.
    if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
        raise InvalidInput(field, "a still picture", f"{frames} frames")
    return image


def _check_segments(data: bytes, field: str) -> None:
    """Refuse a JPEG of many segments or scans; what follows its end, such as a film, does not count."""
    position, scans, exif = len(JPEG_SIGNATURE), 0, 0
    for _ in range(MAX_SEGMENTS + 1):  # and the end
        found = (SEGMENT_OR_END if scans else SEGMENT).search(data, position)
        if found is None or found[1] == END:
            return
        scans += found[1] == SCAN
        exif += EXIF.match(data, found.start()) is not None
        for given, most, what in (scans, MAX_SCANS, "scans"), (exif, MAX_EXIF_SEGMENTS, "segments of EXIF"):
            if given > most:
                raise InvalidInput(field, f"at most {most} {what} in a JPEG", "more", "save it anew")
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    raise InvalidInput(field, f"at most {MAX_SEGMENTS} segments in a JPEG", "more", "save it anew")


def _chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk, where it begins, and where the next one does."""
    position = len(PNG_SIGNATURE)
    while position + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        yield kind, position, position + length + 12
        position += length + 12


def _trimmed(png: bytes, field: str) -> bytes:
    """A PNG without the chunks that nobody reads."""
    parts = [PNG_SIGNATURE]
    for index, (kind, begin, end) in enumerate(_chunks(png)):
        if index == MAX_CHUNKS:
            raise InvalidInput(field, f"at most {MAX_CHUNKS} chunks in a PNG", "more", "save it anew")
        # Pillow checks the checksums of neither the pixels nor what follows them.
        if kind in (b"IDAT", b"eXIf") and zlib.crc32(png[begin + 4 : end - 4]) != int.from_bytes(png[end - 4 : end]):
            raise _unreadable(len(png), field, ValueError("its checksum does not hold"))
        if kind in CHUNKS_READ:
            parts.append(png[begin:end])
    return b"".join(parts)


def decode_picture(image: Image.Image, spec: ImageSpec, *, resize: bool, field: str) -> NDArray[np.float32]:
    """An opened picture as `(C, H, W)` in the model's range; closes it.

    Rotation marked in EXIF is applied, transparency is laid on black.

    Raises:
        InvalidInput: for `field`, where the file is not whole, or of another size and `resize` is false.

    """
    mode = "RGB" if spec.channels == 3 else "L"
    with image:
        try:
            file = getattr(image, "fp", None)  # which Pillow lets go of
            image.load()
            if isinstance(image, PngImagePlugin.PngImageFile):
                _check_rows(image, file)
            pixels = _on_black(_upright(image))
            pixels = pixels if pixels.mode == mode else pixels.convert(mode)
        except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
            raise _unreadable(None, field, error) from error
        if pixels.size != (spec.width, spec.height):
            if not resize:
                raise _wrong_size(field, (spec.width, spec.height), pixels.size)
            pixels = ImageOps.fit(pixels, (spec.width, spec.height), Image.Resampling.BICUBIC)  # as in training
        levels = np.frombuffer(pixels.tobytes(), np.uint8).reshape(spec.height, spec.width, spec.channels)
    return _values_of_levels(spec)[np.ascontiguousarray(levels.transpose(2, 0, 1))]


@functools.cache
def _values_of_levels(spec: ImageSpec) -> NDArray[np.float32]:
    """Value in the model's range of each of the 256 levels of a channel."""
    return np.linspace(spec.minimum, spec.maximum, 256, dtype=np.float32)


def _check_rows(image: PngImagePlugin.PngImageFile, file: IO[bytes] | None) -> None:
    """Refuse a decoded PNG whose data ended before its last row: Pillow leaves black what is missing."""
    assert file is not None
    last_row, interlaced = (0, image.height - 1, image.width, image.height), "interlace" in image.info
    # By way of the core: what Image has around these two takes 20 times as long.
    if not interlaced and image.im.crop(last_row).getbbox(False) is not None:
        return  # it is not black, so it was there
    file.seek(0)
    data = file.read()
    bits = data[24] * CHANNELS[data[25]]  # of a pixel
    width, height = image.size
    missing = 0  # bytes, of which each row has one more for its filter
    for column, row, right, down in PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((column - width) // right), -((row - height) // down)
        missing += rows * (1 + (columns * bits + 7) // 8) if columns > 0 else 0
    inflater = zlib.decompressobj()
    for kind, begin, end in _chunks(data):
        given = data[begin + 8 : end - 4] if kind == b"IDAT" else b""
        while missing and (found := inflater.decompress(given, min(missing, INFLATED_AT_ONCE))):
            missing -= len(found)
            given = inflater.unconsumed_tail
    if missing:
        raise ValueError("rows are missing")


def _upright(image: Image.Image) -> Image.Image:
    if not image.info and image.format == "PNG":  # has nothing that could turn it
        return image
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # nearly anything, on EXIF that is odd; the pixels are whole
        return image
    return image if turn is None else image.transpose(turn)


def _unreadable(size: int | None, field: str, error: Exception) -> InvalidInput:
    reason = (
        "they are none of these" if isinstance(error, UnidentifiedImageError) else short(str(error) or repr(error), 100)
    )
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
    layered = image if image.mode == "RGBA" else image.convert("RGBA")
    black = Image.new("RGB", layered.size)
    black.paste(layered, mask=layered)  # alpha_composite gives the same, and needs two pictures more
    return black


SAVE: dict[str, dict[str, object]] = {
    "PNG": {"compress_level": 1},
    "JPEG": {"quality": 95, "subsampling": 0},  # colours in full: pictures are small and their edges coloured
    "WEBP": {"lossless": True, "method": 2},
}


def encode_picture(image: NDArray[np.float32], spec: ImageSpec, format: str) -> bytes:
    """An image `(C, H, W)` as a file of a format in `SAVE`; values outside the model's range are clipped."""
    scaled = (np.clip(image, spec.minimum, spec.maximum) - spec.minimum) * (255 / (spec.maximum - spec.minimum))
    pixels = np.rint(scaled).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if spec.channels == 1 else pixels))
    file = io.BytesIO()
    picture.save(file, format, **SAVE[format])
    return file.getvalue()
