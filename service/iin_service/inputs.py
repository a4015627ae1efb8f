"""Items of a request as arrays; nothing a caller sends is trusted."""

import math
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
from iin_api.v1 import interpretation_pb2 as pb
from iin_bundle import Manifest
from PIL import Image

from iin_service.errors import InvalidInput
from iin_service.graphs import Compute
from iin_service.images import MAX_PIXELS, decode_picture, open_picture
from iin_service.items import Given, Kind, Trace
from iin_service.stage import Array
from iin_service.tensors import axes

__all__ = ["InputReader", "finite"]

# Of all pictures of a call together, before and after resizing: up to here decoding is quicker than waking a thread.
PIXELS_DECODED_AT_ONCE, BYTES_DECODED_AT_ONCE = 65_536, 65_536


class InputReader:
    """Reads the items of requests to one model."""

    def __init__(self, manifest: Manifest, compute: Compute) -> None:
        """`manifest` gives shapes to check against; all readers of a replica share `compute` with its threads."""
        self.manifest, self.limits = manifest, compute.limits
        self._recorder, self._in_thread = compute.recorder, compute.decode
        self.shapes: dict[str, tuple[int, ...]] = {
            "image": manifest.image.shape,
            "latent": manifest.latent_shape,
            "factors": (manifest.size,),
        }
        """Of one item of each kind."""

    async def inputs(self, inputs: Sequence[pb.Input], field: str, *, resize: bool, trace: Trace) -> list[Given]:
        """The items of `inputs`, in one part if all are of one kind."""
        if not inputs:
            raise InvalidInput(field, "at least one item", "none")
        if len(inputs) > self.limits.max_items:
            raise self.too_many(field, len(inputs))
        given = [
            await self.input(one, f"{field}[{index}]", resize=resize, trace=trace) for index, one in enumerate(inputs)
        ]
        total = sum(len(one.items) for one in given)
        if total > self.limits.max_items:
            raise self.too_many(field, total)
        return [await Given.together(given)] if len({one.kind for one in given}) == 1 else given

    def most_items(self, inputs: Sequence[pb.Input]) -> int:
        """An upper bound of the items in `inputs`, by the shapes that they state: nothing is checked yet."""
        items = 0
        for one in inputs[: self.limits.max_items]:
            kind = one.WhichOneof("value")
            many = kind in self.shapes and len(getattr(one, kind).shape) > len(self.shapes[kind])
            items += max(1, getattr(one, kind).shape[0]) if many else 1
        return min(items, self.limits.max_items)

    async def input(self, value: pb.Input, field: str, *, resize: bool, trace: Trace) -> Given:
        """One input as an array of items."""
        kind = value.WhichOneof("value")
        if kind is None:
            raise InvalidInput(field, "an encoded_image, image, latent or factors", "nothing")
        if kind == "encoded_image":
            name = f"{field}.encoded_image"
            image = await self.picture(value.encoded_image, name, resize=resize, trace=trace)
            return Given("image", image[None], name)
        return Given(kind, self._tensor(getattr(value, kind), kind, f"{field}.{kind}"), f"{field}.{kind}")

    async def picture(self, data: bytes, field: str, *, resize: bool, trace: Trace) -> Array:
        """The image `(C, H, W)` in a file."""
        started = time.perf_counter()
        try:
            image = await self._image(data, field, resize=resize, trace=trace)
        except InvalidInput:
            self._recorder.unreadable_image()
            raise
        trace.codec_seconds += time.perf_counter() - started
        return image

    async def _image(self, data: bytes, field: str, *, resize: bool, trace: Trace) -> Array:
        trace.file_bytes += len(data)
        open_it = partial(self._opened, data, field, resize=resize, trace=trace)
        decode = partial(decode_picture, spec=self.manifest.image, resize=resize, field=field)
        if trace.file_bytes > BYTES_DECODED_AT_ONCE:
            return await self._in_thread(lambda: decode(open_it()), patient=trace.patient)
        picture, spec = open_it(), self.manifest.image
        if max(trace.pixels, trace.pictures * spec.height * spec.width) > PIXELS_DECODED_AT_ONCE:
            return await self._in_thread(partial(decode, picture), patient=trace.patient)
        return decode(picture)

    def _opened(self, data: bytes, field: str, *, resize: bool, trace: Trace) -> Image.Image:
        """The picture in a file, not decoded yet; counts its pixels towards the limit of the call."""
        picture = open_picture(data, self.manifest.image, resize=resize, field=field)
        trace.pixels += picture.width * picture.height
        trace.pictures += 1
        if trace.pixels > MAX_PIXELS:
            raise InvalidInput(
                field,
                f"at most {MAX_PIXELS} pixels in a call",
                f"{trace.pixels} up to here",
                "send smaller pictures",
            )
        return picture

    def checked(self, kind: Kind, values: Array, field: str) -> Array:
        """`values`, or InvalidInput where items of `kind` cannot have them.

        Images may leave the model's range by half of its width, as the output of many decoders does.
        """
        if kind != "image":
            return finite(values, field)
        low, high = self.manifest.image.minimum, self.manifest.image.maximum
        slack = (high - low) / 2
        least, most = values.min(), values.max()
        if not (low - slack <= least and most <= high + slack):
            finite(values, field)
            expected = f"numbers in the model's range, {low:g} to {high:g}"
            raise InvalidInput(field, expected, f"{least:g} to {most:g}", "scale or clip them, or send the file")
        return values

    def _tensor(self, tensor: pb.Tensor, kind: Kind, field: str) -> Array:
        item = self.shapes[kind]
        shape = tuple(tensor.shape[: len(item) + 2])  # one axis more than allowed: there may be millions
        if shape == item:
            shape = (1, *item)
        if shape[1:] != item or shape[0] < 1:
            expected = f"{list(item)} or {['N', *item]} with N >= 1"
            raise InvalidInput(f"{field}.shape", expected, axes(tensor.shape))
        if shape[0] > self.limits.max_items:
            raise self.too_many(field, shape[0])
        size = 4 * math.prod(shape)
        if len(tensor.data) != size:
            expected = f"{size} bytes (float32) for shape {list(tensor.shape)}"
            raise InvalidInput(f"{field}.data", expected, str(len(tensor.data)))
        return self.checked(kind, np.frombuffer(tensor.data, "<f4").reshape(shape), f"{field}.data")

    def too_many(self, field: str, given: int) -> InvalidInput:
        """More items than a call may have."""
        return InvalidInput(
            field,
            f"at most {self.limits.max_items} items in a call",
            str(given),
            "split them over several calls",
        )


def finite(values: Array, field: str) -> Array:
    """`values`, or InvalidInput where one is NaN or infinite."""
    if not np.isfinite(values).all():
        raise InvalidInput(field, "finite values", "NaN or infinity")
    return values
