"""From request messages to the engine's types; every field is checked here."""

import math
from collections.abc import Sequence

import numpy as np
from iin_api.v1 import interpretation_pb2 as pb

from iin_service.edits import LEAST_TRUNCATION, Edit, Replace, Resample, SetValue, Shift
from iin_service.errors import InvalidInput, short
from iin_service.inputs import InputReader
from iin_service.items import Given, Held, Trace, Wanted
from iin_service.stage import Array
from iin_service.walks import Interpolation, LinearWalk, RandomWalk, Walk

__all__ = ["RequestReader", "checked_number", "checked_source"]

FORMATS = [value for value in pb.ImageFormat.values() if value != pb.IMAGE_FORMAT_UNSPECIFIED]
DRAWS, STEP = 100, 0.1  # where a request does not say
LARGEST = float(np.finfo(np.float32).max)
NUMBERS = {  # the least and the most that one may be, and how a message says it
    "strength": (0.0, 1.0, "a number in [0, 1]"),
    "temperature": (0.0, LARGEST, "a finite number of at least 0"),
    "truncation": (float(np.float32(LEAST_TRUNCATION)), LARGEST, f"a finite number of at least {LEAST_TRUNCATION}"),
    "step": (math.ulp(0.0), LARGEST, "a finite number above 0"),
}


def checked_source(source: Given, targets: int, field: str) -> Given:
    """`source`, or InvalidInput where it does not have one item, or one for each of so many targets."""
    if len(source.items) not in (1, targets):
        expected = "1 item" if targets == 1 else f"1 item or {targets}, one a target"
        raise InvalidInput(field, expected, str(len(source.items)))
    return source


def checked_number(kind: str, value: float, field: str) -> float:
    """`value`, or InvalidInput where it is outside the bounds of its `kind`."""
    least, most, expected = NUMBERS[kind]
    if not least <= value <= most:
        raise InvalidInput(field, expected, str(np.float32(value)))  # all its digits: 1.0000001 is not 1
    return value


class RequestReader:
    """Reads requests to one model."""

    def __init__(self, items: InputReader) -> None:
        """`items` reads images, latents and factors."""
        self.items = items
        self.layout = items.manifest.layout
        self.limits = items.limits

    def most_items(self, request: pb.EditRequest | pb.SampleRequest | pb.TraverseRequest) -> int:
        """An upper bound of the items that a request gives, sources included, before anything is checked."""
        match request:
            case pb.EditRequest():
                edits = request.edits[: self.limits.max_edits]
                sources = [edit.replace.source for edit in edits if edit.HasField("replace")]
                return self.items.most_items(request.targets) + self.items.most_items(sources)
            case pb.SampleRequest():
                fixed = request.fixed[: len(self.layout.names)]
                return self.items.most_items([one.source for one in fixed if one.HasField("source")])
            case pb.TraverseRequest():
                ends = [request.interpolation.destination] if request.HasField("interpolation") else []
                return self.items.most_items([request.start, *ends])

    async def edits(self, edits: Sequence[pb.EditOperation], targets: int, *, resize: bool, trace: Trace) -> list[Edit]:
        """All edits of a request with `targets` items."""
        if not edits:
            raise InvalidInput("edits", "at least one edit", "none")
        if len(edits) > self.limits.max_edits:
            raise InvalidInput("edits", f"at most {self.limits.max_edits} edits", str(len(edits)))
        found, sources = [], 0
        for index, edit in enumerate(edits):
            found.append(await self._edit(edit, f"edits[{index}]", targets, resize=resize, trace=trace))
            if isinstance(operation := found[-1].operation, Replace):
                sources += len(operation.source.items)
            if sources > self.limits.max_items:
                raise self.items.too_many("edits", sources)
        return found

    async def _edit(self, edit: pb.EditOperation, field: str, targets: int, *, resize: bool, trace: Trace) -> Edit:
        size = self._factor_size(edit.factor, f"{field}.factor")
        match edit.WhichOneof("operation"):
            case "replace":
                given = edit.replace.strength if edit.replace.HasField("strength") else 1.0
                strength = checked_number("strength", given, f"{field}.replace.strength")
                where = f"{field}.replace.source"
                source = await self.items.input(edit.replace.source, where, resize=resize, trace=trace)
                return Edit(edit.factor, Replace(checked_source(source, targets, where), strength), field)
            case "set":
                values = self._values(edit.set.values, size, f"{field}.set.values")
                return Edit(edit.factor, SetValue(values), field)
            case "resample":
                temperature = self._temperature(edit.resample, f"{field}.resample.temperature")
                return Edit(edit.factor, Resample(edit.resample.seed, temperature), field)
            case "shift":
                return Edit(edit.factor, Shift(*self._line(edit.shift, size, f"{field}.shift")), field)
            case _:
                raise InvalidInput(f"{field}.operation", "replace, set, resample or shift", "nothing")

    def _factor_size(self, name: str, field: str) -> int:
        if name not in self.layout:
            raise InvalidInput(field, f"one of {', '.join(self.layout.names)}", repr(short(name)))
        return self.layout.size_of(name)

    def _values(self, values: Sequence[float], size: int, field: str) -> Array:
        if len(values) != size:
            raise InvalidInput(field, f"{size} values, as many as the factor has dimensions", str(len(values)))
        array = np.fromiter(values, np.float32)
        if not np.isfinite(array).all():
            raise InvalidInput(field, "finite values", "NaN or infinity")
        return array

    def _line(self, message: pb.Shift | pb.LinearWalk, size: int, field: str) -> tuple[Array, float]:
        """Direction and distance."""
        direction = self._values(message.direction, size, f"{field}.direction")
        if not direction.any():
            raise InvalidInput(f"{field}.direction", "values that are not all zero", "zeros only")
        if not math.isfinite(message.distance):
            raise InvalidInput(f"{field}.distance", "a finite number", str(message.distance))
        return direction, message.distance

    def _temperature(
        self, message: pb.Resample | pb.SampleRequest | pb.RandomWalk | pb.RespondRequest, field: str
    ) -> float:
        given = message.temperature if message.HasField("temperature") else 1.0
        return checked_number("temperature", given, field)

    def _some_factors(self, names: Sequence[str], field: str) -> tuple[str, ...]:
        """Names of factors, each once; all where none is given."""
        for index, name in enumerate(names):
            self._factor_size(name, f"{field}[{index}]")
            if name in names[:index]:
                raise InvalidInput(f"{field}[{index}]", "every factor at most once", f"{name!r} again")
        return tuple(names) or self.layout.names

    async def _one(self, value: pb.Input, field: str, *, resize: bool, trace: Trace) -> Given:
        """An input of a single item."""
        given = await self.items.input(value, field, resize=resize, trace=trace)
        if len(given.items) != 1:
            raise InvalidInput(field, "1 item", str(len(given.items)))
        return given

    async def sample(self, request: pb.SampleRequest, trace: Trace) -> tuple[float, float | None, list[Held]]:
        """Temperature, truncation and fixed factors of a request whose count is checked too."""
        if not 1 <= request.count <= self.limits.max_samples:
            raise InvalidInput("count", f"between 1 and {self.limits.max_samples}", str(request.count))
        given = request.truncation if request.HasField("truncation") else None
        truncation = None if given is None else checked_number("truncation", given, "truncation")
        fixed: list[Held] = []
        for index, one in enumerate(request.fixed):
            field = f"fixed[{index}]"
            size = self._factor_size(one.factor, f"{field}.factor")
            where = self.layout.slice(one.factor)
            if where in (held.where for held in fixed):
                raise InvalidInput(f"{field}.factor", "every factor at most once", f"{one.factor!r} again")
            match one.WhichOneof("value"):
                case "source":
                    source = await self._one(one.source, f"{field}.source", resize=request.resize, trace=trace)
                    fixed.append(Held(where, source, source.field))
                case "set":
                    values = self._values(one.set.values, size, f"{field}.set.values")
                    fixed.append(Held(where, values, f"{field}.set.values"))
                case _:
                    raise InvalidInput(f"{field}.value", "a source or set", "nothing")
        return self._temperature(request, "temperature"), truncation, fixed

    async def traverse(self, request: pb.TraverseRequest, trace: Trace) -> tuple[Given, Walk, Given | None]:
        """Start, path and destination of a request whose number of frames is checked too."""
        if not 2 <= request.frames <= self.limits.max_samples:
            raise InvalidInput("frames", f"between 2 and {self.limits.max_samples}", str(request.frames))
        start = await self._one(request.start, "start", resize=request.resize, trace=trace)
        match request.WhichOneof("path"):
            case "interpolation":
                given, field = request.interpolation, "interpolation"
                factors = self._some_factors(given.factors, f"{field}.factors")
                where = f"{field}.destination"
                destination = await self._one(given.destination, where, resize=request.resize, trace=trace)
                return start, Interpolation(factors), destination
            case "linear":
                size = self._factor_size(request.linear.factor, "linear.factor")
                return start, LinearWalk(request.linear.factor, *self._line(request.linear, size, "linear")), None
            case "random":
                random = request.random
                step = checked_number("step", random.step if random.HasField("step") else STEP, "random.step")
                temperature = self._temperature(random, "random.temperature")
                factors = self._some_factors(random.factors, "random.factors")
                return start, RandomWalk(factors, random.seed, step, temperature), None
            case _:
                raise InvalidInput("path", "interpolation, linear or random", "nothing")

    async def respond(
        self, request: pb.RespondRequest, trace: Trace
    ) -> tuple[list[Given], tuple[str, ...], int, float]:
        """Items, factors, draws and temperature of a request."""
        given = await self.items.inputs(request.inputs, "inputs", resize=request.resize, trace=trace)
        factors = self._some_factors(request.factors, "factors")
        draws = request.draws if request.HasField("draws") else DRAWS
        if draws < 2:
            raise InvalidInput("draws", "at least 2", str(draws))
        total = sum(len(one.items) for one in given) * len(factors) * draws
        if total > self.limits.max_samples:
            raise InvalidInput(
                "draws",
                f"at most {self.limits.max_samples} draws for all items and factors together",
                str(total),
                "ask for fewer, or split the items over several calls",
            )
        return given, factors, draws, self._temperature(request, "temperature")

    @staticmethod
    def wanted(request: pb.EditRequest | pb.SampleRequest | pb.TraverseRequest) -> Wanted:
        """What the answer is to hold."""
        if request.format not in FORMATS:
            names = [pb.ImageFormat.Name(value) for value in FORMATS]
            raise InvalidInput("format", f"one of {', '.join(names)}", str(request.format))
        return Wanted(images=request.format != pb.IMAGE_FORMAT_NONE, latents=request.return_latents)
