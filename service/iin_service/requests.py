"""From request messages to the engine's types; every field is checked here."""

import asyncio
import math
import time
from collections.abc import Iterable, Sequence

import numpy as np
from iin_api.v1 import interpretation_pb2 as pb
from iin_bundle import Manifest

from iin_service.edits import Edit, Replace, Resample, SetValue, Shift
from iin_service.engine import Given, Limits, PendingEdit, Trace
from iin_service.errors import InvalidInput
from iin_service.images import MAX_PIXELS, decode_picture, open_picture
from iin_service.stage import Array

__all__ = ["RequestReader"]

# Up to here, all pictures of a call together, decoding is quicker than waking a thread for it.
PIXELS_DECODED_AT_ONCE, BYTES_DECODED_AT_ONCE = 65_536, 65_536
DECODERS = 2  # threads that decode at once: each may hold a picture of the largest size
NOTHING: Array = np.zeros((0, 0), np.float32)  # stands for a source that is not interpreted yet


class RequestReader:
    """Reads requests to one model."""

    def __init__(self, manifest: Manifest, limits: Limits) -> None:
        """`manifest` gives shapes and names to check against, `limits` what a call may ask for."""
        self.manifest = manifest
        self.layout = manifest.layout
        self.limits = limits
        self._decoders = asyncio.Semaphore(DECODERS)
        self._shapes = {
            "image": manifest.image.shape,
            "latent": manifest.latent_shape,
            "factors": (manifest.size,),
        }

    async def inputs(self, inputs: Sequence[pb.Input], field: str, *, resize: bool, trace: Trace) -> list[Given]:
        """What is given in `inputs`; runs of encoded images are joined into one item array."""
        if not inputs:
            raise InvalidInput(field, "at least one item", "none")
        if len(inputs) > self.limits.max_items:
            raise self._too_many(field, len(inputs))
        given = [
            await self.input(one, f"{field}[{index}]", resize=resize, trace=trace) for index, one in enumerate(inputs)
        ]
        total = sum(len(one.items) for one in given)
        if total > self.limits.max_items:
            raise self._too_many(field, total)
        return [Given.joined(given)] if len({one.kind for one in given}) == 1 else given

    async def input(self, value: pb.Input, field: str, *, resize: bool, trace: Trace) -> Given:
        """One input as an array of items."""
        kind = value.WhichOneof("value")
        if kind is None:
            raise InvalidInput(field, "an encoded_image, image, latent or factors", "nothing")
        if kind == "encoded_image":
            name = f"{field}.encoded_image"
            image = await self._decode(value.encoded_image, name, resize=resize, trace=trace)
            return Given("image", image[None], name)
        return Given(kind, self._tensor(getattr(value, kind), self._shapes[kind], f"{field}.{kind}"), f"{field}.{kind}")

    async def _decode(self, data: bytes, field: str, *, resize: bool, trace: Trace) -> Array:
        spec, started = self.manifest.image, time.perf_counter()
        picture = open_picture(data, spec, resize=resize, field=field)
        trace.pixels += picture.width * picture.height
        if trace.pixels > MAX_PIXELS:
            raise InvalidInput(
                field,
                f"at most {MAX_PIXELS} pixels in a call",
                f"{trace.pixels} up to here",
                "send smaller pictures",
            )
        if trace.pixels <= PIXELS_DECODED_AT_ONCE and len(data) <= BYTES_DECODED_AT_ONCE:
            image = decode_picture(picture, spec, resize=resize, field=field)
        else:
            async with self._decoders:
                image = await asyncio.to_thread(decode_picture, picture, spec, resize=resize, field=field)
        trace.codec_seconds += time.perf_counter() - started
        return image

    def _tensor(self, tensor: pb.Tensor, item: tuple[int, ...], field: str) -> Array:
        shape = tuple(tensor.shape)
        if shape == item:
            shape = (1, *item)
        if shape[1:] != item or len(shape) != len(item) + 1 or shape[0] < 1:
            raise InvalidInput(f"{field}.shape", f"{list(item)} or {['N', *item]} with N >= 1", str(list(tensor.shape)))
        if shape[0] > self.limits.max_items:
            raise self._too_many(field, shape[0])
        expected = 4 * math.prod(shape)
        if len(tensor.data) != expected:
            raise InvalidInput(
                f"{field}.data",
                f"{expected} bytes (float32) for shape {list(tensor.shape)}",
                f"{len(tensor.data)}",
            )
        values = np.frombuffer(tensor.data, "<f4").reshape(shape)
        if not np.isfinite(values).all():
            raise InvalidInput(f"{field}.data", "finite values", "NaN or infinity")
        return values.astype(np.float32, copy=False)

    def _too_many(self, field: str, given: int) -> InvalidInput:
        return InvalidInput(
            field,
            f"at most {self.limits.max_items} items in a call",
            str(given),
            "split them over several calls",
        )

    async def edits(
        self, edits: Sequence[pb.EditOperation], targets: int, *, resize: bool, trace: Trace
    ) -> list[PendingEdit]:
        """All edits of a request with `targets` items."""
        if not edits:
            raise InvalidInput("edits", "at least one edit", "none")
        if len(edits) > self.limits.max_edits:
            raise InvalidInput("edits", f"at most {self.limits.max_edits} edits", str(len(edits)))
        pending, sources = [], 0
        for index, edit in enumerate(edits):
            pending.append(await self._edit(edit, f"edits[{index}]", targets, resize=resize, trace=trace))
            if (source := pending[-1].source) is not None:
                sources += len(source.items)
            if sources > self.limits.max_items:
                raise self._too_many("edits", sources)
        return pending

    async def _edit(
        self, edit: pb.EditOperation, field: str, targets: int, *, resize: bool, trace: Trace
    ) -> PendingEdit:
        size = self._factor_size(edit.factor, f"{field}.factor")
        match edit.WhichOneof("operation"):
            case "replace":
                strength = edit.replace.strength if edit.replace.HasField("strength") else 1.0
                if not 0 <= strength <= 1:
                    raise InvalidInput(f"{field}.replace.strength", "a number in [0, 1]", f"{strength:g}")
                where = f"{field}.replace.source"
                source = await self.input(edit.replace.source, where, resize=resize, trace=trace)
                if len(source.items) not in (1, targets):
                    raise InvalidInput(where, f"1 item or {targets}, one a target", str(len(source.items)))
                return PendingEdit(Edit(edit.factor, Replace(NOTHING, strength)), source)
            case "set":
                values = self._values(edit.set.values, size, f"{field}.set.values")
                return PendingEdit(Edit(edit.factor, SetValue(values)))
            case "resample":
                temperature = self._temperature(edit.resample, f"{field}.resample.temperature")
                return PendingEdit(Edit(edit.factor, Resample(edit.resample.seed, temperature)))
            case "shift":
                direction = self._values(edit.shift.direction, size, f"{field}.shift.direction")
                if not direction.any():
                    raise InvalidInput(f"{field}.shift.direction", "values that are not all zero", "zeros only")
                if not math.isfinite(edit.shift.distance):
                    raise InvalidInput(f"{field}.shift.distance", "a finite number", str(edit.shift.distance))
                return PendingEdit(Edit(edit.factor, Shift(direction, edit.shift.distance)))
            case _:
                raise InvalidInput(f"{field}.operation", "replace, set, resample or shift", "nothing")

    def _factor_size(self, name: str, field: str) -> int:
        if name not in self.layout:
            raise InvalidInput(field, f"one of {', '.join(self.layout.names)}", repr(name))
        return self.layout.size_of(name)

    def _values(self, values: Iterable[float], size: int, field: str) -> Array:
        array = np.fromiter(values, np.float32)
        if len(array) != size:
            raise InvalidInput(field, f"{size} values, as many as the factor has dimensions", str(len(array)))
        if not np.isfinite(array).all():
            raise InvalidInput(field, "finite values", "NaN or infinity")
        return array

    def _temperature(self, message: pb.Resample | pb.SampleRequest, field: str) -> float:
        temperature = message.temperature if message.HasField("temperature") else 1.0
        if not 0 <= temperature < math.inf:
            raise InvalidInput(field, "a finite number of at least 0", f"{temperature:g}")
        return temperature

    async def sample(self, request: pb.SampleRequest, trace: Trace) -> tuple[float, list[tuple[str, Array | Given]]]:
        """Temperature and fixed factors of a request whose count is checked too."""
        if not 1 <= request.count <= self.limits.max_samples:
            raise InvalidInput("count", f"between 1 and {self.limits.max_samples}", str(request.count))
        fixed: list[tuple[str, Array | Given]] = []
        for index, one in enumerate(request.fixed):
            field = f"fixed[{index}]"
            size = self._factor_size(one.factor, f"{field}.factor")
            if one.factor in (name for name, _ in fixed):
                raise InvalidInput(f"{field}.factor", "every factor at most once", f"{one.factor!r} again")
            match one.WhichOneof("value"):
                case "source":
                    source = await self.input(one.source, f"{field}.source", resize=request.resize, trace=trace)
                    if len(source.items) != 1:
                        raise InvalidInput(f"{field}.source", "1 item", str(len(source.items)))
                    fixed.append((one.factor, source))
                case "set":
                    fixed.append((one.factor, self._values(one.set.values, size, f"{field}.set.values")))
                case _:
                    raise InvalidInput(f"{field}.value", "a source or set", "nothing")
        return self._temperature(request, "temperature"), fixed

    @staticmethod
    def image_format(value: int) -> int:
        """A format that this service can write."""
        if value not in (pb.IMAGE_FORMAT_PNG, pb.IMAGE_FORMAT_RAW):
            raise InvalidInput("format", "IMAGE_FORMAT_PNG or IMAGE_FORMAT_RAW", str(value))
        return value
