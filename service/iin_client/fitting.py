"""Image files that keep to what a call may hold: split over several calls, or shrunk as the service would."""

import functools
import io
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from iin_client.arguments import Picture
from iin_client.client import Client
from iin_client.errors import CallError
from iin_client.model import Limits, Model
from iin_client.results import Interpretations
from iin_client.upright import upright

__all__ = ["Size", "array_size", "as_seen", "file_size", "fitted", "interpreted", "parts"]

_FRAMING_BYTES = 64  # more than a message needs beside a file or an array: tags, lengths, shape


class Size(NamedTuple):
    """What an item takes up of a call's limits."""

    pixels: int
    """Of an encoded image, as its header declares them; 0 for arrays."""
    bytes: int
    """In the message."""


def file_size(file: bytes) -> Size:
    """Size of an image file, none of which is decoded; OSError where it is no picture."""
    with Image.open(io.BytesIO(file)) as image:
        return Size(image.width * image.height, len(file) + _FRAMING_BYTES)


def array_size(*arrays: NDArray[np.float32]) -> Size:
    """Size of an item that consists of `arrays`."""
    return Size(0, sum(array.nbytes + _FRAMING_BYTES for array in arrays))


def parts(sizes: Sequence[Size], limits: Limits) -> list[slice]:
    """Splits items over calls that keep to `limits`, in order; an item above them is alone in its call."""
    found, start = [], 0
    total = Size(0, 0)
    for index, item in enumerate(sizes):
        total = _sum(total, item)
        if index > start and (index - start == limits.max_items or _is_above(total, limits)):
            found.append(slice(start, index))
            start, total = index, item
    return [*found, slice(start, len(sizes))] if sizes else []


def fitted(files: Sequence[bytes], model: Model) -> Sequence[bytes]:
    """`files` of one call, all resized to the model's size if together they have more pixels or bytes than it may.

    The service would resize them in the same way. Those that it refuses at any size, of more than 8 bits a channel,
    of more than one frame or not whole, stay as they are. OSError where one is no picture.
    """
    total = functools.reduce(_sum, map(file_size, files), Size(0, 0))
    return [_shrunk(file, model) for file in files] if _is_above(total, model.limits) else files


def interpreted(
    client: Client, model: Model, pictures: Sequence[Picture], *, resize: bool
) -> Iterator[tuple[Sequence[str], Interpretations]]:
    """Paths of pictures, and what `client` finds in them, by call; a CallError names the picture at fault."""
    for part in parts([file_size(picture.data) for picture in pictures], model.limits):
        names, files = [picture.path for picture in pictures[part]], [picture.data for picture in pictures[part]]
        try:
            yield names, client.interpret(fitted(files, model) if resize else files, resize=resize)
        except CallError as error:
            at = re.match(r"inputs\[(\d+)\]", error.message)  # in this call, not among all
            if at is None:
                raise
            raise CallError(error.code, f"{names[int(at[1])]}: {error}", error.violations) from error


def as_seen(file: bytes, model: Model) -> Image.Image:
    """The picture that the model gets of an image file: upright, on black, of its size; OSError if it is not whole."""
    with Image.open(io.BytesIO(file)) as image:
        turned = upright(image).convert("RGBA")
    opaque = Image.new("RGBA", turned.size, "black")
    opaque.alpha_composite(turned)
    size = (model.image.width, model.image.height)
    same_mode = opaque.convert("L" if model.image.channels == 1 else "RGB")
    return same_mode if same_mode.size == size else ImageOps.fit(same_mode, size, Image.Resampling.BICUBIC)


def _sum(one: Size, other: Size) -> Size:
    return Size(one.pixels + other.pixels, one.bytes + other.bytes)


def _is_above(total: Size, limits: Limits) -> bool:
    return total.pixels > limits.max_image_pixels or total.bytes > limits.max_message_bytes


def _shrunk(file: bytes, model: Model) -> bytes:
    with Image.open(io.BytesIO(file)) as image:
        still = image.format == "MPO" or getattr(image, "n_frames", 1) == 1  # MPO: a JPEG with previews behind it
        if image.mode.startswith(("I", "F")) or not still:
            return file
    try:
        seen = as_seen(file, model)
    except Exception:  # nearly anything, SyntaxError included, of a file that is not whole
        return file
    small = io.BytesIO()
    seen.save(small, format="PNG")
    return small.getvalue()
