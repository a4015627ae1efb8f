"""Keeps image files to what one call may hold: splits them over several calls, or shrinks them as the service would."""

import io
import re
from collections.abc import Iterator, Sequence

from PIL import Image, ImageOps

from iin_client.arguments import Picture
from iin_client.client import Client
from iin_client.errors import CallError
from iin_client.model import Model
from iin_client.results import Interpretations
from iin_client.upright import upright

__all__ = ["as_seen", "fitted", "interpreted"]

_FRAMING_BYTES = 64  # more than a message needs beside a file: tags, lengths


def fitted(files: Sequence[bytes], model: Model, *, resize: bool) -> Sequence[bytes]:
    """`files` of one call; with `resize`, all are shrunk where together they exceed the call's pixels or bytes.

    The service would resize them in the same way. A file that it refuses at any size stays as it is: of more than 8
    bits a channel, of more than one frame, or not whole. OSError where one is no picture.
    """
    limits, length = model.limits, sum(len(file) + _FRAMING_BYTES for file in files)
    if resize and (sum(map(_pixels, files)) > limits.max_image_pixels or length > limits.max_message_bytes):
        return [_shrunk(file, model) for file in files]
    return files


def interpreted(
    client: Client, model: Model, pictures: Sequence[Picture], *, resize: bool
) -> Iterator[tuple[Sequence[str], Interpretations]]:
    """Interprets pictures in as few calls as may be; gives the paths and result of each call.

    With `resize`, pictures are shrunk as in `fitted`. A CallError names the picture at fault.
    """
    for part in _calls(pictures, model):
        names, files = [picture.path for picture in part], [picture.data for picture in part]
        try:
            yield names, client.interpret(fitted(files, model, resize=resize), resize=resize)
        except CallError as error:
            at = re.match(r"inputs\[(\d+)\]", error.message)  # its index in this call
            if at is None:
                raise
            raise CallError(error.code, f"{names[int(at[1])]}: {error}", error.violations) from error


def _calls(pictures: Sequence[Picture], model: Model) -> Iterator[Sequence[Picture]]:
    """The pictures of each call, in order; one that is too large for any call is alone in its own."""
    limits, image = model.limits, model.image
    most = min(limits.max_items, limits.max_image_pixels // (image.height * image.width))
    start, length = 0, 0
    for index, picture in enumerate(pictures):
        size = len(picture.data) + _FRAMING_BYTES
        if index > start and (index - start == most or length + size > limits.max_message_bytes):
            yield pictures[start:index]
            start, length = index, 0
        length += size
    yield pictures[start:]


def as_seen(file: bytes, model: Model) -> Image.Image:
    """The picture that the model gets of an image file: upright, on black, of its size; OSError if it is not whole."""
    with Image.open(io.BytesIO(file)) as image:
        turned = upright(image).convert("RGBA")
    opaque = Image.new("RGBA", turned.size, "black")
    opaque.alpha_composite(turned)
    size = (model.image.width, model.image.height)
    same_mode = opaque.convert("L" if model.image.channels == 1 else "RGB")
    return same_mode if same_mode.size == size else ImageOps.fit(same_mode, size, Image.Resampling.BICUBIC)


def _pixels(file: bytes) -> int:
    """Pixels that the header of a file declares."""
    with Image.open(io.BytesIO(file)) as image:
        return image.width * image.height


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
