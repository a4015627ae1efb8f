"""What callers ask for as chains of graphs; numpy in, numpy out, no transport."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from iin_bundle import Manifest
from numpy.typing import NDArray

from iin_service.analysis import Analysis
from iin_service.edits import Edit, Replace, change, draw_prior
from iin_service.errors import InvalidInput, Unsupported
from iin_service.graphs import Compute, Graphs, RunRole, likelihoods
from iin_service.items import Decoded, Given, Held, Interpreted, Response, Trace, Wanted
from iin_service.stage import Array, Outputs
from iin_service.walks import Interpolation, LinearWalk, RandomWalk, Walk, walk

__all__ = ["Engine"]

HEAD = "head"
TARGET = -1  # in place of the index of an edit
BLAMED = {Interpolation: "interpolation", LinearWalk: "linear.distance", RandomWalk: "random.temperature"}
# Drawn or edited in the event loop itself: about 0.1 ms at most, where waking a thread takes 0.05.
NUMBERS_AT_ONCE = 8_192
ROW = 256  # numbers whose draw takes as long as the start of a vector's own generator
T = TypeVar("T")
Write = Callable[[int, Decoded, Trace], Awaitable[T]]
"""What is made of a part of a stream: of the index of its first item, the items, and where their time went."""


class Engine:
    """One model: interpret, edit, sample, traverse, respond.

    Who gives items has them admitted by `compute`, from before they are read until the answer is built. What the
    engine draws by itself, for a stream or an analysis, it has admitted part by part.
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
        factors, *givers_factors = np.split(found, np.cumsum(counts)[:-1])
        rows = len(edits) * (4 + len(factors))  # an edit takes as long as the draw of four more
        of_sources = dict(zip(sources, givers_factors, strict=True))
        factors, givers = await self._aside(rows, self._edited, factors, edits, of_sources)

        def to_blame(row: int) -> str:
            """What gave the largest value of a target."""
            giver = givers[row, np.abs(factors[row]).argmax()]
            return _field_of_all(targets)(row) if giver == TARGET else edits[giver].field

        return await self._decoded(factors, wanted, trace, to_blame)

    def _edited(
        self, factors: Array, edits: Sequence[Edit], sources: Mapping[int, Array]
    ) -> tuple[Array, NDArray[np.intp]]:
        """`factors`, `(N, D)`, after all edits, and the edit that gave most of each value, `(N, D)`, or `TARGET`.

        `sources` has the factors of a source by its `id`.
        """
        factors, givers = factors.copy(), np.full(factors.shape, TARGET)
        for index, edit in enumerate(edits):
            source = sources[id(edit.operation.source)] if isinstance(edit.operation, Replace) else None
            gave_most = change(factors, edit, self.layout, source)
            np.copyto(givers[:, self.layout.slice(edit.factor)], index, where=gave_most)
        return factors, givers

    async def held(self, fixed: Sequence[Held], trace: Trace) -> list[Held]:
        """Fixed factors in their order with values in place of sources."""
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
        """Draws from the prior in order, up to `size` a part: each function draws a part, and gives what is written.

        `field` is where the temperature stands in the request, for error messages.
        """
        fields = [field] * self.layout.size  # what gives each value of a sample
        for one in held:
            fields[one.where] = [one.field] * len(fields[one.where])

        async def part(indices: range, trace: Trace) -> T:
            async with self.compute.admitted(len(indices), patient=trace.patient):
                how = seed, indices, self.layout.size, truncation, temperature
                rows = len(indices) if truncation is None else math.inf  # drawn again and again
                factors = await self._aside(rows, draw_prior, *how)
                for one in held:
                    assert isinstance(one.values, np.ndarray)  # as `held` gives it
                    factors[:, one.where] = one.values

                def to_blame(row: int) -> str:
                    """What gives the largest value of a sample."""
                    return fields[int(np.abs(factors[row]).argmax())]

                return await write(indices.start, await self._decoded(factors, wanted, trace, to_blame), trace)

        return _parts(part, count, size, trace)

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
        """Frames of a path in order, as `sample`; a function is to be called when the one before has given its part.

        `ends`, `(1, D)` or `(2, D)`, are the factors of the start and of the destination of an interpolation.
        `field` is where the start stands in the request, for error messages.
        """
        begin, blamed = ends[:1], BLAMED[type(path)]
        frames = walk(ends, path, count, self.layout)

        async def part(indices: range, trace: Trace) -> T:
            async with self.compute.admitted(len(indices), patient=trace.patient):
                factors = np.concatenate(await asyncio.to_thread(list, islice(frames, len(indices))))
                grown = np.abs(factors).max(axis=1) > np.abs(begin).max()
                fields = [blamed if one else field for one in grown]
                return await write(
                    indices.start, await self._decoded(factors, wanted, trace, fields.__getitem__), trace
                )

        return _parts(part, count, size, trace)

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
        """What drawing each of `factors` anew does to the classes of what was `classified`; see `Analysis`."""
        analysis = Analysis(self.layout, factors, items, before, draws=draws, seed=seed, temperature=temperature)
        size = self.compute.limits.max_batch_size
        for first in range(0, analysis.total, size):
            numbers = range(analysis.total)[first : first + size]
            async with self.compute.admitted(len(numbers), patient=True):
                drawn = await self._aside(len(numbers), analysis.drawn, numbers)
                analysis.add(numbers, await self._classes(drawn, trace, lambda _: "temperature"))
        return await asyncio.to_thread(analysis.responses)

    async def _classes(self, factors: Array, trace: Trace, field_of: Callable[[int], str]) -> Array:
        """Class probabilities of factor vectors `(n, D)`."""
        ((latents, _),) = await self._graphs.run("inverse", factors, trace, field_of)
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
            ((latents, _),) = await self._graphs.run("inverse", factors, trace, field_of)
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


def _parts(
    part: Callable[[range, Trace], Awaitable[T]], count: int, size: int, trace: Trace
) -> Iterator[Callable[[], Awaitable[T]]]:
    """`part` of each `size` of `count` indices in order; the first has `trace`, the others wait for room."""
    for first in range(0, count, size):
        yield partial(part, range(first, min(first + size, count)), trace)
        trace = Trace(patient=True)


def _field_of_all(given: Sequence[Given]) -> Callable[[int], str]:
    """The field of a row of everything given together."""

    def field_of(row: int) -> str:
        return [one.field_of(item) for one in given for item in range(len(one.items))][row]

    return field_of


async def _by_kind(
    run: Callable[[Given, Trace], Coroutine[Any, Any, Outputs]], given: Sequence[Given], trace: Trace
) -> Outputs:
    """What `run` gives for everything given, in order; what is of one kind goes through the stages together."""
    if len(given) == 1:
        return await run(given[0], trace)
    kinds: dict[str, list[int]] = {}
    for index, one in enumerate(given):
        kinds.setdefault(one.kind, []).append(index)

    async def of_kind(group: list[int]) -> Outputs:
        return await run(await Given.together([given[index] for index in group]), trace)

    found = await _together([of_kind(group) for group in kinds.values()])
    if len(found) == 1:
        return found[0]
    ends = np.cumsum([len(one.items) for one in given])
    rows = [
        np.arange(ends[index] - len(given[index].items), ends[index]) for group in kinds.values() for index in group
    ]
    order = np.argsort(np.concatenate(rows))
    return tuple(np.concatenate(column)[order] for column in zip(*found, strict=True))


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
