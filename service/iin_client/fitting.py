"""Image files that keep to what a call may hold: split over several calls, or shrunk as the service would."""

import io
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image, ImageOps

from iin_client.arguments import Picture
from iin_client.client import Client
from iin_client.errors import CallError
from iin_client.model import Limits, Model
from iin_client.results import Interpretations
from iin_client.upright import upright

__all__ = ["Size", "as_seen", "file_size", "fitted", "interpreted", "parts"]

_FRAMING_BYTES = 64  # more than a message needs beside a file: tags, lengths


class Size(NamedTuple):
    """What a picture takes up of a call's limits."""

    pixels: int
    """As the file's header declares them."""
    bytes: int
    """In the message."""


def file_size(file: bytes) -> Size:
    """Size of an image file, none of which is decoded; OSError where it is no picture."""
    with Image.open(io.BytesIO(file)) as image:
        return Size(image.width * image.height, len(file) + _FRAMING_BYTES)


def parts(sizes: Sequence[Size], limits: Limits) -> list[slice]:
    """Splits items over calls that keep to `limits`, in order; an item above them is alone in its call."""
    found, start = [], 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or end - start == limits.max_items or _is_above(sizes[start : end + 1], limits):
            found.append(slice(start, end))
            start = end
    return found


def fitted(files: Sequence[bytes], model: Model, *, resize: bool) -> Sequence[bytes]:
    """`files` of one call; with `resize`, and if together they have more pixels or bytes than it may, all shrunk.

    The service would resize them in the same way. Those that it refuses at any size, of more than 8 bits a channel,
    of more than one frame or not whole, stay as they are. OSError where one is no picture.
    """
    if not (resize and _is_above([file_size(file) for file in files], model.limits)):
        return files
    return [_shrunk(file, model) for file in files]


def interpreted(
    client: Client, model: Model, pictures: Sequence[Picture], *, resize: bool
) -> Iterator[tuple[Sequence[str], Interpretations]]:
    """Paths of pictures, and what `client` finds in them, by call; a CallError names the picture at fault."""
    for part in parts([file_size(picture.data) for picture in pictures], model.limits):
        names, files = [picture.path for picture in pictures[part]], [picture.data for picture in pictures[part]]
        try:
            yield names, client.interpret(fitted(files, model, resize=resize), resize=resize)
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


def _is_above(sizes: Sequence[Size], limits: Limits) -> bool:
    pixels, length = sum(size.pixels for size in sizes), sum(size.bytes for size in sizes)
    return pixels > limits.max_image_pixels or length > limits.max_message_bytes


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
