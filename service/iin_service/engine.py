"""What callers ask for as chains of graphs; numpy in, numpy out, no transport."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from iin_bundle import Manifest

from iin_service.analysis import Analysis
from iin_service.edits import Edit, Replace, change, draw_prior
from iin_service.errors import InvalidInput, Unsupported
from iin_service.graphs import Compute, Graphs, RunRole, likelihoods
from iin_service.items import Decoded, Given, Held, Interpreted, Response, Trace, Wanted
from iin_service.stage import Array, Outputs
from iin_service.walks import Interpolation, LinearWalk, RandomWalk, Walk, walk

__all__ = ["Engine"]

HEAD = "head"
BLAMED = {Interpolation: "interpolation", LinearWalk: "linear.distance", RandomWalk: "random.temperature"}
# So many numbers are drawn or edited in the event loop itself: it takes about 0.1 ms, and waking a thread 0.05.
NUMBERS_AT_ONCE = 8_192
ROW = 256  # numbers: drawing these takes as long as starting the generator of a vector
T = TypeVar("T")
FieldOf = Callable[[int], str]
"""The path in the request of what a row of an array is made of, for error messages."""
Write = Callable[[int, Decoded, Trace], Awaitable[T]]
"""Makes the answer of one part of a stream, from the index of its first item, the items and their trace."""


class Engine:
    """One model: interpret, edit, sample, traverse, respond.

    The caller has the items it gives admitted by `compute`, from before they are read until the answer is built. What
    the engine draws itself, for a stream or an analysis, the engine has admitted, part by part.
    """

    def __init__(self, manifest: Manifest, run: RunRole, compute: Compute) -> None:
        """`run` runs the graph of a role on a batch; engines of a replica share `compute`."""
        self.manifest = manifest
        self.layout = manifest.layout
        self.compute = compute
        self._graphs = Graphs(manifest, run, compute)

    def check(self, wanted: Wanted) -> None:
        """Raise Unsupported where the model cannot give what is wanted: before `edit`, `sample` or `traverse`."""
        if wanted.images and ("inverse", "decoder") not in self._graphs:
            raise Unsupported(
                f"the model '{self.manifest.name}' has no decoder, so it gives no images; ask for IMAGE_FORMAT_NONE"
            )

    async def factors(self, given: Sequence[Given], trace: Trace) -> Array:
        """Factors, `(N, D)`, of everything given, in order."""

        async def factors_of(one: Given, trace: Trace) -> Outputs:
            return (one.items,) if one.kind == "factors" else (await self._interpreted(one, trace))[1:2]

        (factors,) = await _by_kind(factors_of, given, trace)
        return factors

    async def graph(self, role: str, given: Given, trace: Trace) -> Outputs:
        """Outputs of one graph as the bundle has it."""
        (outputs,) = await self._graphs.run(role, given.items, trace, given.field_of)
        return outputs

    async def interpret(self, given: Sequence[Given], trace: Trace) -> Interpreted:
        """Latents, factors and likelihood of everything given, in order."""
        found = Interpreted(*await _by_kind(self._interpreted, given, trace))
        if HEAD in self._graphs:
            ((probabilities,),) = await self._graphs.run(HEAD, found.latents, trace, _field_of_all(given))
            found = replace(found, probabilities=probabilities)
        images = np.repeat([one.kind == "image" for one in given], [len(one.items) for one in given])
        self.compute.recorder.likelihoods(found.quantiles[images])
        return found

    async def _interpreted(self, given: Given, trace: Trace) -> Outputs:
        """Latents, factors, log-likelihoods and their quantiles."""
        if given.kind == "factors":
            ((latents, log_dets),) = await self._graphs.run("inverse", given.items, trace, given.field_of)
            quantiles = self.manifest.log_likelihood_quantiles
            return latents, given.items, *likelihoods(given.items, -log_dets, quantiles)
        if given.kind == "latent":
            (scored,) = await self._graphs.run(("transform",), given.items, trace, given.field_of)
            return given.items, *scored
        (latents,), scored = await self._graphs.run(("encoder", "transform"), given.items, trace, given.field_of)
        return latents, *scored

    async def edit(self, targets: Sequence[Given], edits: Sequence[Edit], wanted: Wanted, trace: Trace) -> Decoded:
        """Targets with all edits applied in order, decoded.

        Targets and sources go through the encoder and the transform together, a source that several edits share
        once. A source of one item serves all targets, one of N items goes item by item.
        """
        replacing = [one.operation for one in edits if isinstance(one.operation, Replace)]
        sources = {id(one.source): one.source for one in replacing}
        found = await self.factors([*targets, *sources.values()], trace)
        counts = [sum(len(one.items) for one in targets), *(len(one.items) for one in sources.values())]
        before, *of_sources = np.split(found, np.cumsum(counts)[:-1])
        factors_of = dict(zip(sources, of_sources, strict=True))

        def edited() -> Array:
            factors = before.copy()
            for one in edits:
                source = factors_of[id(one.operation.source)] if isinstance(one.operation, Replace) else None
                change(factors, one, self.layout, source)
            return factors

        factors = await self._aside(len(edits) * (4 + len(before)), edited)  # an edit costs as much as 4 draws more

        def to_blame(row: int) -> str:
            """The last edit of the factor with the largest value; the target where the edits changed it little."""
            largest = np.abs(factors[row]).argmax()
            old, new = float(before[row, largest]), float(factors[row, largest])
            blamed = [one.field for one in edits if self.layout.mask([one.factor])[largest]]
            return blamed[-1] if blamed and abs(new - old) >= abs(old) / 2 else _field_of_all(targets)(row)

        return await self._decoded(factors, wanted, trace, to_blame)

    async def held(self, fixed: Sequence[Held], trace: Trace) -> list[Held]:
        """The fixed factors in order, each source replaced by the values it gives."""
        sources = [one.values for one in fixed if isinstance(one.values, Given)]
        found = iter(await self.factors(sources, trace) if sources else ())
        return [one._replace(values=next(found)[one.where]) if isinstance(one.values, Given) else one for one in fixed]

    def sample(
        self,
        count: int,
        *,
        size: int,
        seed: int,
        temperature: float,
        truncation: float | None,
        held: Sequence[Held],
        wanted: Wanted,
        trace: Trace,
        write: Write[T],
        field: str = "temperature",
    ) -> Iterator[Callable[[], Awaitable[T]]]:
        """Draws from the prior in order, in parts of up to `size`: each function draws one and returns what is written.

        `field` is the temperature's path in the request, for error messages.
        """
        fields = [field] * self.layout.size  # what gives each value of a sample
        for one in held:
            fields[one.where] = [one.field] * len(fields[one.where])

        async def draw(indices: range) -> tuple[Array, FieldOf]:
            how = seed, indices, self.layout.size, truncation, temperature
            rows = len(indices) if truncation is None else math.inf  # drawn again and again
            factors = await self._aside(rows, draw_prior, *how)
            for one in held:
                assert isinstance(one.values, np.ndarray)  # as `held` returns it
                factors[:, one.where] = one.values
            return factors, lambda row: fields[int(np.abs(factors[row]).argmax())]

        return self._parts(draw, count, size, wanted, trace, write)

    def traverse(
        self,
        ends: Array,
        path: Walk,
        count: int,
        *,
        size: int,
        wanted: Wanted,
        trace: Trace,
        write: Write[T],
        field: str = "start",
    ) -> Iterator[Callable[[], Awaitable[T]]]:
        """Frames of a path in order, as `sample`; call each function after the one before has returned.

        `ends`, `(1, D)` or `(2, D)`, are the factors of the start and of the destination of an interpolation.
        `field` is the start's path in the request, for error messages.
        """
        begin, blamed = ends[:1], BLAMED[type(path)]
        frames = walk(ends, path, count, self.layout)

        async def draw(indices: range) -> tuple[Array, FieldOf]:
            factors = np.concatenate(await asyncio.to_thread(list, islice(frames, len(indices))))
            return factors, lambda row: blamed if np.abs(factors[row]).max() > np.abs(begin).max() else field

        return self._parts(draw, count, size, wanted, trace, write)

    def _parts(
        self,
        draw: Callable[[range], Awaitable[tuple[Array, FieldOf]]],
        count: int,
        size: int,
        wanted: Wanted,
        trace: Trace,
        write: Write[T],
    ) -> Iterator[Callable[[], Awaitable[T]]]:
        """A function for each `size` of `count` indices: it draws them, runs the graphs and returns what is written.

        The first has `trace`; the others are patient.
        """

        async def part(indices: range, trace: Trace) -> T:
            async with self.compute.admitted(len(indices), patient=trace.patient):
                factors, field_of = await draw(indices)
                return await write(indices.start, await self._decoded(factors, wanted, trace, field_of), trace)

        for first in range(0, count, size):
            yield partial(part, range(first, min(first + size, count)), trace)
            trace = Trace(patient=True)

    async def classified(self, given: Sequence[Given], trace: Trace) -> tuple[Array, Array]:
        """Factors, `(N, D)`, and class probabilities, `(N, classes)`, of everything given, in order."""
        if HEAD not in self._graphs:
            raise Unsupported(
                f"the model '{self.manifest.name}' has no head, so it has no classes that could respond; "
                "interpret with it, or call one that has a head"
            )
        items = await self.factors(given, trace)
        return items, await self._classes(items, trace, _field_of_all(given))

    async def respond(
        self,
        items: Array,
        before: Array,
        factors: Sequence[str],
        *,
        draws: int,
        seed: int,
        temperature: float,
        trace: Trace,
    ) -> list[Response]:
        """How the classes of what was `classified` respond to drawing each of `factors` anew; see `Analysis`."""
        trace = replace(trace, patient=True)  # it keeps the same list of passes
        analysis = Analysis(self.layout, factors, items, before, draws=draws, seed=seed, temperature=temperature)
        size = self.compute.limits.max_batch_size
        for first in range(0, analysis.total, size):
            numbers = range(analysis.total)[first : first + size]
            async with self.compute.admitted(len(numbers), patient=True):
                drawn = await self._aside(len(numbers), analysis.drawn, numbers)
                analysis.add(numbers, await self._classes(drawn, trace, lambda _: "temperature"))
        return await asyncio.to_thread(analysis.responses)

    async def _classes(self, factors: Array, trace: Trace, field_of: FieldOf) -> Array:
        """Class probabilities of factor vectors `(n, D)`."""
        ((latents, _),) = await self._graphs.run("inverse", factors, trace, field_of)
        ((probabilities,),) = await self._graphs.run(HEAD, latents, trace, field_of)
        return probabilities

    async def _decoded(self, factors: Array, wanted: Wanted, trace: Trace, field_of: FieldOf) -> Decoded:
        """What is wanted of factor vectors `(n, D)`, and class probabilities where there is a head."""
        if not (finite := np.isfinite(factors).all(axis=1)).all():
            raise InvalidInput(
                field_of(int(np.argmin(finite))), "factors that stay finite", "an overflow", "use smaller values"
            )
        images = latents = probabilities = None
        if wanted.images:
            (latents, _), (images,) = await self._graphs.run(("inverse", "decoder"), factors, trace, field_of)
        elif wanted.latents or HEAD in self._graphs:
            ((latents, _),) = await self._graphs.run("inverse", factors, trace, field_of)
        if HEAD in self._graphs:
            assert latents is not None
            ((probabilities,),) = await self._graphs.run(HEAD, latents, trace, field_of)
        latents = latents if wanted.latents else None
        return Decoded(factors=factors, images=images, latents=latents, probabilities=probabilities)

    async def _aside(self, rows: float, function: Callable[..., T], *arguments: Any) -> T:
        """`function(*arguments)`, in a thread if it costs more than drawing a few `rows`."""
        if rows * (ROW + self.layout.size) <= NUMBERS_AT_ONCE:
            return function(*arguments)
        return await asyncio.to_thread(function, *arguments)


def _field_of_all(given: Sequence[Given]) -> FieldOf:
    """The path in the request of a row of everything given together."""
    return lambda row: [one.field_of(item) for one in given for item in range(len(one.items))][row]


async def _by_kind(
    run: Callable[[Given, Trace], Coroutine[Any, Any, Outputs]], given: Sequence[Given], trace: Trace
) -> Outputs:
    """The outputs of `run` for everything given, in order; items of one kind go through the stages together.

    Where one kind fails, the others are cancelled.
    """
    kinds: dict[str, list[int]] = {}
    for index, one in enumerate(given):
        kinds.setdefault(one.kind, []).append(index)
    if len(kinds) == 1:
        return await run(await Given.together(given), trace)

    async def of_kind(indices: list[int]) -> Outputs:
        return await run(await Given.together([given[index] for index in indices]), trace)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(of_kind(indices)) for indices in kinds.values()]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    ends = np.cumsum([len(one.items) for one in given])
    rows = np.split(np.arange(ends[-1]), ends[:-1])
    order = np.argsort(np.concatenate([rows[index] for indices in kinds.values() for index in indices]))
    return tuple(np.concatenate(column)[order] for column in zip(*(task.result() for task in tasks), strict=True))
