"""What callers ask for as chains of graphs; numpy in, numpy out, no transport."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from iin_bundle import Manifest
from numpy.typing import NDArray

from iin_service.edits import Replace, apply_edit, draw_prior
from iin_service.errors import InvalidInput, Unsupported
from iin_service.graphs import Graphs
from iin_service.items import Decoded, Given, Interpreted, Limits, PendingEdit, Response, Trace, Wanted
from iin_service.recording import Recorder, Silent
from iin_service.stage import Array, Outputs, Run
from iin_service.walks import Interpolation, LinearWalk, RandomWalk, Walk, walk

__all__ = ["Engine"]

HEAD = ("head",)
BLAMED = {Interpolation: "interpolation", LinearWalk: "linear.distance", RandomWalk: "random.temperature"}
NUMBERS_AT_ONCE = 16_384  # of factors drawn or edited: up to here quicker than waking a thread for them
T = TypeVar("T")


class Engine:
    """One model: interpret, edit, sample, traverse, respond."""

    def __init__(
        self, manifest: Manifest, runner: Callable[[str], Run], limits: Limits, recorder: Recorder | None = None
    ) -> None:
        """`runner(role)` gives the function that runs a graph on a batch."""
        self.manifest = manifest
        self.layout = manifest.layout
        self.limits = limits
        self._recorder = recorder or Silent()
        self._graphs = Graphs(manifest, runner, limits, self._recorder)

    async def factors_of(self, given: Given, trace: Trace) -> Array:
        """Factors, `(n, D)`, of anything given."""
        return given.items if given.kind == "factors" else (await self._interpret_one(given, trace)).factors

    async def _factors_of_all(self, given: Sequence[Given], trace: Trace) -> list[Array]:
        """Factors of each, those of one kind through the stages together."""
        kinds = sorted({one.kind for one in given})
        groups = [[one for one in given if one.kind == kind] for kind in kinds]
        found = await _together([self.factors_of(Given.joined(group), trace) for group in groups])
        rows = {
            kind: iter(np.split(factors, np.cumsum([len(one.items) for one in group])[:-1]))
            for kind, group, factors in zip(kinds, groups, found, strict=True)
        }
        return [next(rows[one.kind]) for one in given]

    async def graph(self, role: str, given: Given, trace: Trace) -> Outputs:
        """Outputs of one graph as the bundle has it."""
        async with self._graphs.admitted([given], trace):
            return await self._graphs.run_alone(role, given.items, trace, given.field)

    async def interpret(self, given: Sequence[Given], trace: Trace) -> Interpreted:
        """Latents, factors and likelihood of everything given, in order."""
        async with self._graphs.admitted(given, trace):
            parts = await _together([self._interpret_one(one, trace) for one in given])
            found = parts[0] if len(parts) == 1 else Interpreted.joined(parts)
            if HEAD in self._graphs:
                ((probabilities,),) = await self._graphs.run(HEAD, found.latents, trace, _field_of_all(given))
                found = replace(found, probabilities=probabilities)
        row = 0
        for one in given:
            if one.kind == "image":
                self._recorder.likelihoods(found.quantiles[row : row + len(one.items)])
            row += len(one.items)
        return found

    async def _interpret_one(self, given: Given, trace: Trace) -> Interpreted:
        if given.kind == "factors":
            ((latents, log_dets),) = await self._graphs.run(("inverse",), given.items, trace, given.field_of)
            return Interpreted(latents, given.items, *self._graphs.likelihoods(given.items, -log_dets))
        if given.kind == "latent":
            (scored,) = await self._graphs.run(("transform",), given.items, trace, given.field_of)
            return Interpreted(given.items, *scored)
        (latents,), scored = await self._graphs.run(("encoder", "transform"), given.items, trace, given.field_of)
        return Interpreted(latents, *scored)

    async def edit(
        self, targets: Sequence[Given], edits: Sequence[PendingEdit], wanted: Wanted, trace: Trace
    ) -> Decoded:
        """Targets with all edits applied in order, decoded.

        Targets and sources go through the encoder and the transform together. A source of one item
        serves all targets, one of N items goes item by item.
        """
        self._check(wanted)
        given = [*targets, *(pending.source for pending in edits if pending.source is not None)]
        async with self._graphs.admitted(given, trace):
            found = await self._factors_of_all(given, trace)
            factors, sources = _joined(found[: len(targets)]), iter(found[len(targets) :])
            largest = [np.abs(factors).max(axis=1)]  # of each target before and after each edit
            for pending in edits:
                edit = pending.edit
                if pending.source is not None:
                    assert isinstance(edit.operation, Replace)
                    edit = replace(edit, operation=replace(edit.operation, source=next(sources)))
                numbers = factors.size * len(edits)
                factors = await _aside(numbers, apply_edit, factors, edit, self.layout, pending.field)
                largest.append(np.abs(factors).max(axis=1))

            def to_blame(row: int) -> str:
                """The last edit that changed the largest value of a target, if it has grown, or else the target."""
                *earlier, last = (one[row] for one in largest)
                if last <= earlier[0]:
                    return _field_of_all(targets)(row)
                return next(edits[index].field for index in reversed(range(len(edits))) if earlier[index] != last)

            return await self._decoded(factors, wanted, trace, to_blame)

    async def sample(
        self,
        count: int,
        *,
        seed: int,
        temperature: float,
        truncation: float | None,
        fixed: Sequence[tuple[str, Array | Given]],
        wanted: Wanted,
        trace: Trace,
        field: str = "temperature",
    ) -> AsyncGenerator[tuple[int, Decoded, Trace]]:
        """Draws from the prior in order: the index of the first, some of them, and where their time went.

        `field` is where the temperature stands in the request, for error messages.
        """
        self._check(wanted)
        sources = [value for _, value in fixed if isinstance(value, Given)]
        held: list[tuple[str, Array]] = []
        if sources:
            async with self._graphs.admitted(sources, trace):
                for name, value in fixed:
                    if isinstance(value, Given):
                        value = (await self.factors_of(value, trace))[0, self.layout.slice(name)]
                    held.append((name, value))
        else:
            held = [(name, value) for name, value in fixed if not isinstance(value, Given)]
        size, blamed = min(count, self.limits.samples_per_message), "fixed" if held else field
        for first in range(0, count, size):
            indices = range(first, min(first + size, count))
            numbers = len(indices) * self.layout.size
            drawn = await _aside(numbers, draw_prior, seed, indices, self.layout.size, truncation)
            factors: Array = np.float32(temperature) * drawn
            for name, values in held:
                factors[:, self.layout.slice(name)] = values
            yield first, await self._admitted_decoded(factors, wanted, trace, lambda _: blamed), trace
            trace = Trace(patient=True)

    async def traverse(
        self,
        start: Given,
        path: Walk,
        destination: Given | None,
        count: int,
        wanted: Wanted,
        trace: Trace,
    ) -> AsyncGenerator[tuple[int, Decoded, Trace]]:
        """Frames of a path in order, as `sample`; an interpolation goes to `destination`."""
        self._check(wanted)
        given, blamed = [start] if destination is None else [start, destination], BLAMED[type(path)]
        async with self._graphs.admitted(given, trace):
            begin, *end = await self._factors_of_all(given, trace)
        if end:
            assert isinstance(path, Interpolation)
            path = replace(path, destination=end[0])
        frames = walk(begin, path, count, self.layout)
        size = min(count, self.limits.samples_per_message)
        for first in range(0, count, size):
            parts: list[Array] = await _aside(size * self.layout.size, list, islice(frames, size))
            factors = np.concatenate(parts)
            grown = np.abs(factors).max(axis=1) > np.abs(begin).max()
            fields = [blamed if one else start.field for one in grown]
            yield first, await self._admitted_decoded(factors, wanted, trace, fields.__getitem__), trace
            trace = Trace(patient=True)

    async def _admitted_decoded(
        self, factors: Array, wanted: Wanted, trace: Trace, field_of: Callable[[int], str]
    ) -> Decoded:
        """One message of a stream; its rows count as under way while it is made, not while the caller reads."""
        async with self._graphs.admitted([Given("factors", factors, "")], trace):
            return await self._decoded(factors, wanted, trace, field_of)

    async def respond(
        self,
        given: Sequence[Given],
        factors: Sequence[str],
        *,
        draws: int,
        seed: int,
        temperature: float,
        trace: Trace,
    ) -> tuple[Array, list[Response]]:
        """Class probabilities of everything given, and what drawing each of `factors` anew does to them.

        Network response analysis: Esser, Rombach, Ommer (CVPR 2020), section 4.
        """
        if HEAD not in self._graphs:
            raise Unsupported(
                f"the model '{self.manifest.name}' has no head, so it has no classes that could respond; "
                "interpret with it, or call one that has a head"
            )
        size = self.limits.max_batch_size
        async with self._graphs.admitted(given, trace):
            items = _joined(await self._factors_of_all(given, trace))
            before = await self._classes(items, trace, _field_of_all(given))
        shape = len(factors), len(items), draws
        found = np.empty((math.prod(shape), before.shape[1]), np.float32)
        belongs = np.zeros((len(factors), self.layout.size), bool)
        for mask, name in zip(belongs, factors, strict=True):
            mask[self.layout.slice(name)] = True
        patient = replace(trace, patient=True)
        for first in range(0, len(found), size):
            rows = slice(first, min(first + size, len(found)))
            place, item, draw = np.unravel_index(np.arange(rows.start, rows.stop), shape)
            # The same draws for every item: it responds alone as it does in company.
            noise = await _aside(len(draw) * self.layout.size, draw_prior, seed, draw.tolist(), self.layout.size)
            changed = np.where(belongs[place], np.float32(temperature) * noise, items[item])
            async with self._graphs.admitted([Given("factors", changed, "temperature")], patient):
                found[rows] = await self._classes(changed, patient, lambda _: "temperature")
        drawn = found.reshape(*shape, -1)
        return before, [_response(name, one, before.argmax(axis=1)) for name, one in zip(factors, drawn, strict=True)]

    async def _classes(self, factors: Array, trace: Trace, field_of: Callable[[int], str]) -> Array:
        """Class probabilities of factor vectors `(n, D)`."""
        ((latents, _),) = await self._graphs.run(("inverse",), factors, trace, field_of)
        ((probabilities,),) = await self._graphs.run(HEAD, latents, trace, field_of)
        return probabilities

    async def _decoded(self, factors: Array, wanted: Wanted, trace: Trace, field_of: Callable[[int], str]) -> Decoded:
        """What is wanted of factor vectors `(n, D)`, and class probabilities where there is a head."""
        if not (finite := np.isfinite(factors).all(axis=1)).all():
            raise InvalidInput(
                field_of(int(np.argmin(finite))), "factors that stay finite", "an overflow", "use smaller values"
            )
        images = latents = probabilities = None
        if wanted.images:
            (latents, _), (images,) = await self._graphs.run(("inverse", "decoder"), factors, trace, field_of)
        elif wanted.latents or HEAD in self._graphs:
            ((latents, _),) = await self._graphs.run(("inverse",), factors, trace, field_of)
        if HEAD in self._graphs:
            assert latents is not None
            ((probabilities,),) = await self._graphs.run(HEAD, latents, trace, field_of)
        latents = latents if wanted.latents else None
        return Decoded(factors=factors, images=images, latents=latents, probabilities=probabilities)

    def _check(self, wanted: Wanted) -> None:
        if wanted.images and ("inverse", "decoder") not in self._graphs:
            raise Unsupported(
                f"the model '{self.manifest.name}' has no decoder, so it gives no images; ask for IMAGE_FORMAT_NONE"
            )


def _response(factor: str, drawn: Array, before: NDArray[np.intp]) -> Response:
    """From probabilities `(N, draws, classes)` and the classes `(N,)` without a draw."""
    classes = drawn.argmax(axis=2)
    return Response(
        factor=factor,
        mean_probabilities=drawn.mean(axis=1, dtype=np.float64).astype(np.float32),
        probability_deviations=drawn.std(axis=1, dtype=np.float64).astype(np.float32),
        class_deviations=classes.std(axis=1),
        class_changes=(classes != before[:, None]).mean(axis=1),
    )


def _field_of_all(given: Sequence[Given]) -> Callable[[int], str]:
    """The field of a row of everything given together."""

    def field_of(row: int) -> str:
        return [one.field_of(item) for one in given for item in range(len(one.items))][row]

    return field_of


def _joined(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


async def _aside(numbers: int, function: Callable[..., T], *arguments: Any) -> T:
    """What `function` gives for the arguments, in a thread if it works on many numbers: the event loop goes on."""
    if numbers <= NUMBERS_AT_ONCE:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)


async def _together(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all; when one fails the others are cancelled and the first failure is raised."""
    if len(calls) == 1:
        return [await calls[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
