"""What callers ask for as chains of graphs; numpy in, numpy out, no transport."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from iin_bundle import Manifest
from numpy.typing import NDArray

from iin_service.edits import Purpose, Replace, added, apply_edit, draw_prior
from iin_service.errors import InvalidInput, Unsupported
from iin_service.graphs import Compute, Graphs
from iin_service.items import Decoded, Given, Interpreted, Limits, PendingEdit, Response, Trace, Wanted
from iin_service.recording import Recorder, Silent
from iin_service.stage import Array, Outputs, Run
from iin_service.walks import Interpolation, LinearWalk, RandomWalk, Walk, walk

__all__ = ["Engine"]

HEAD = ("head",)
TARGET = -1  # in place of the index of an edit
BLAMED = {Interpolation: "interpolation", LinearWalk: "linear.distance", RandomWalk: "random.temperature"}
# Drawn or edited in the event loop itself: about 0.1 ms at most, where waking a thread takes 0.05.
NUMBERS_AT_ONCE = 8_192
ROW = 256  # numbers whose draw takes as long as the start of a vector's own generator
T = TypeVar("T")


class Engine:
    """One model: interpret, edit, sample, traverse, respond."""

    def __init__(
        self,
        manifest: Manifest,
        runner: Callable[[str], Run],
        limits: Limits,
        recorder: Recorder | None = None,
        compute: Compute | None = None,
    ) -> None:
        """`runner(role)` gives the function that runs a graph on a batch; engines of a replica share `compute`."""
        self.manifest = manifest
        self.layout = manifest.layout
        self.limits = limits
        self._recorder = recorder or Silent()
        self._graphs = Graphs(manifest, runner, limits, self._recorder, compute or Compute(limits, self._recorder))

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
        images = np.repeat([one.kind == "image" for one in given], [len(one.items) for one in given])
        self._recorder.likelihoods(found.quantiles[images])
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

        Targets and sources go through the encoder and the transform together, a source that several edits share
        once. A source of one item serves all targets, one of N items goes item by item.
        """
        self._check(wanted)
        sources = {id(pending.source): pending.source for pending in edits if pending.source is not None}
        given = [*targets, *sources.values()]
        async with self._graphs.admitted(given, trace):
            found = await self._factors_of_all(given, trace)
            factors, of_sources = _joined(found[: len(targets)]), dict(zip(sources, found[len(targets) :], strict=True))
            rows = len(edits) * (4 + len(factors))  # an edit takes as long as the draw of four more
            factors, givers = await self._aside(rows, self._edited, factors, edits, of_sources)

            def to_blame(row: int) -> str:
                """What gave the largest value of a target."""
                giver = givers[row, np.abs(factors[row]).argmax()]
                return _field_of_all(targets)(row) if giver == TARGET else edits[giver].field

            return await self._decoded(factors, wanted, trace, to_blame)

    def _edited(
        self, factors: Array, edits: Sequence[PendingEdit], sources: Mapping[int, Array]
    ) -> tuple[Array, NDArray[np.intp]]:
        """`factors`, `(N, D)`, after all edits, and the edit that gave most of each value, `(N, D)`, or `TARGET`.

        `sources` has the factors of a source by its `id`.
        """
        givers = np.full(factors.shape, TARGET)
        for index, pending in enumerate(edits):
            edit = pending.edit
            if pending.source is not None:
                assert isinstance(edit.operation, Replace)
                edit = replace(edit, operation=replace(edit.operation, source=sources[id(pending.source)]))
            before, factors = factors, apply_edit(factors, edit, self.layout, pending.field)
            givers[added(before, factors, edit, self.layout)] = index
        return factors, givers

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

        `field` is where the temperature stands in the request, for error messages; `fixed` is in its order.
        """
        self._check(wanted)
        sources = [value for _, value in fixed if isinstance(value, Given)]
        found: Iterator[Array] = iter(())
        if sources:
            async with self._graphs.admitted(sources, trace):
                found = iter(await self._factors_of_all(sources, trace))
        held, fields = [], [field] * self.layout.size  # what gives each value of a sample
        for index, (name, value) in enumerate(fixed):
            where, blamed = self.layout.slice(name), f"fixed[{index}].set.values"
            if isinstance(value, Given):
                blamed, value = value.field, next(found)[0, where]
            held.append((where, value))
            fields[where] = [blamed] * len(value)

        def to_blame(row: int) -> str:
            """What gives the largest value of a sample."""
            return fields[int(np.abs(factors[row]).argmax())]

        size = min(count, self.limits.samples_per_message)
        for first in range(0, count, size):
            indices = range(first, min(first + size, count))
            rows = len(indices) if truncation is None else math.inf  # drawn again and again
            factors = await self._aside(rows, draw_prior, seed, indices, self.layout.size, truncation, temperature)
            for where, values in held:
                factors[:, where] = values
            yield first, await self._admitted_decoded(factors, wanted, trace, to_blame), trace
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
            factors = np.concatenate(await asyncio.to_thread(list, islice(frames, size)))
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
            indices = draw.tolist()
            how = seed, indices, self.layout.size, None, temperature, Purpose.RESPONSE
            noise = await self._aside(len(draw), draw_prior, *how)
            changed = np.where(belongs[place], noise, items[item])
            async with self._graphs.admitted([Given("factors", changed, "temperature")], patient):
                found[rows] = await self._classes(changed, patient, lambda _: "temperature")
        classes = before.argmax(axis=1)
        drawn = zip(factors, found.reshape(*shape, -1), strict=True)
        return before, [await asyncio.to_thread(_response, name, one, classes) for name, one in drawn]

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

    async def _aside(self, rows: float, function: Callable[..., T], *arguments: Any) -> T:
        """What `function` gives for the arguments, in a thread if it takes longer than a few `rows` drawn."""
        if rows * (ROW + self.layout.size) <= NUMBERS_AT_ONCE:
            return function(*arguments)
        return await asyncio.to_thread(function, *arguments)

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
