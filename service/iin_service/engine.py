"""Interpret, edit and sample as chains of stages; numpy in, numpy out, no transport."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
from iin_bundle import Manifest
from numpy.typing import NDArray

from iin_service.edits import Edit, Replace, apply_edit, draw_prior
from iin_service.errors import InvalidInput, Overloaded, Unsupported
from iin_service.stage import Array, Outputs, Pass, Run, Stage

__all__ = ["Decoded", "Engine", "Given", "Interpreted", "Limits", "PendingEdit", "Trace"]

LOG_2PI = math.log(2 * math.pi)
# What a call can ask for in one go: the ways into the factors, out of them, and the head. A row is one queue, so
# calls with images and calls with latents do not share a batch of the transform; most send images.
GRAPHS_IN_A_ROW: tuple[tuple[str, ...], ...] = (
    ("encoder", "transform"),
    ("transform",),
    ("inverse", "decoder"),
    ("inverse",),
    ("head",),
)
HEAD = ("head",)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a call may ask for, and how much may wait."""

    max_items: int = 256
    """Items in the inputs, targets or sources of one call."""
    max_samples: int = 10_000
    """Samples of one call."""
    max_edits: int = 64
    """Edits of one call."""
    max_batch_size: int = 64
    """Items that a stage takes at once."""
    max_queued_items: int = 4096
    """Items of all calls under way together; a call past it is refused before it costs anything."""
    samples_per_message: int = 32
    """Samples in one message of a stream."""


@dataclass(frozen=True)
class Given:
    """Items at some point of the way image -> latent -> factors."""

    kind: Literal["image", "latent", "factors"]
    items: Array
    """`(n, C, H, W)`, `(n, *latent_shape)` or `(n, D)`."""
    field: str
    """Where they stand in the request, for error messages."""
    fields: tuple[str, ...] = ()
    """Where each item stands, if they stand in several places."""

    @classmethod
    def joined(cls, parts: "Sequence[Given]") -> "Given":
        """Parts of one kind as one array, so that they pass the stages together."""
        if len(parts) == 1:
            return parts[0]
        fields = tuple(name for one in parts for name in one.fields or (one.field,) * len(one.items))
        return cls(parts[0].kind, np.concatenate([one.items for one in parts]), parts[0].field, fields)

    def field_of(self, row: int) -> str:
        """Where item `row` stands."""
        return self.fields[row] if self.fields else self.field


@dataclass
class Trace:
    """Where the time of a call goes."""

    started: float = field(default_factory=time.perf_counter)
    codec_seconds: float = 0.0
    pixels: int = 0
    """Pixels of the image files read so far."""
    passes: list[Pass] = field(default_factory=list)


@dataclass(frozen=True)
class Interpreted:
    """N interpreted items."""

    latents: Array
    """`(N, *latent_shape)`."""
    factors: Array
    """`(N, D)`."""
    log_likelihoods: NDArray[np.float64]
    """`(N,)` in nats."""
    quantiles: NDArray[np.float64]
    """`(N,)` in [0, 1]."""
    probabilities: Array | None = None
    """`(N, classes)` where the model has a head."""

    @classmethod
    def joined(cls, parts: Sequence["Interpreted"]) -> "Interpreted":
        """Parts without probabilities, one after the other."""
        columns = zip(*((one.latents, one.factors, one.log_likelihoods, one.quantiles) for one in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True)
class Decoded:
    """N images and the factors that they were decoded from."""

    images: Array
    """`(N, C, H, W)` in the model's range."""
    factors: Array
    """`(N, D)`."""


@dataclass(frozen=True)
class PendingEdit:
    """An edit whose source, if it replaces, has not been interpreted yet."""

    edit: Edit
    source: Given | None = None


class Engine:
    """The stages of one bundle and the three things they can do together.

    Stages share one compute slot and one thread: the number of cores a graph uses is the sessions'
    business, and the event loop stays free.
    """

    def __init__(
        self,
        manifest: Manifest,
        runner: Callable[[str], Run],
        limits: Limits,
    ) -> None:
        """`runner(role)` gives the function that runs a graph on a batch."""
        self.manifest = manifest
        self.layout = manifest.layout
        self.limits = limits
        self._items = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="compute")
        slot = asyncio.Semaphore(1)
        runs = {role: runner(role) for role in manifest.graphs}
        runs["transform"] = self._scored(runs["transform"])
        rows = [row for row in GRAPHS_IN_A_ROW if all(role in runs for role in row)]
        self._stages = {
            row: Stage(
                {role: runs[role] for role in row},
                slot=slot,
                executor=self._executor,
                max_batch_size=limits.max_batch_size,
            )
            for row in rows
        }

    def _scored(self, transform: Run) -> Run:
        """`transform` with log-likelihoods in nats and their quantiles in place of the log-determinants."""

        def run(latents: Array) -> Outputs:
            factors, log_dets = transform(latents)
            return factors, *self._likelihoods(factors, log_dets)

        return run

    def _likelihoods(self, factors: Array, log_dets: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log-likelihood, in nats, and its quantile for each of `factors`, `(n, D)`."""
        wide = factors.astype(np.float64)
        with np.errstate(invalid="ignore"):  # an overflow is refused afterwards, to its own caller alone
            log_prior = -0.5 * (np.einsum("nd,nd->n", wide, wide) + self.layout.size * LOG_2PI)
            log_likelihoods = log_prior + log_dets
        return log_likelihoods, self.manifest.log_likelihood_quantiles.quantile(log_likelihoods)

    @contextmanager
    def _admitted(self, given: Iterable[Given], more: int = 0) -> Iterator[None]:
        """Count a call's items, and `more`, as under way; a lone call is always admitted.

        An item waits for at most one stage at a time, so this bounds every queue.
        """
        items = sum(len(one.items) for one in given) + more
        if self._items and self._items + items > self.limits.max_queued_items:
            raise Overloaded(
                f"{self._items} items are under way and at most {self.limits.max_queued_items} may be; retry later"
            )
        self._items += items
        try:
            yield
        finally:
            self._items -= items

    async def _pass(
        self, roles: tuple[str, ...], items: Array, trace: Trace, field_of: Callable[[int], str]
    ) -> list[Outputs]:
        """The outputs of each graph of a row; `field_of` names the item that a row of the arrays stands for."""
        outputs, passes = await self._stages[roles](items)
        trace.passes += passes
        if not all(one.finite for one in passes):  # somebody's in the batch
            for role, own in zip(roles, outputs, strict=True):
                broken = [~np.isfinite(output).reshape(len(items), -1).all(axis=1) for output in own]
                if (rows := np.flatnonzero(np.any(broken, axis=0))).size:
                    raise InvalidInput(
                        field_of(int(rows[0])),
                        "values that the model maps to finite ones",
                        f"an overflow in the {role}",
                        "use smaller values",
                    )
        return outputs

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

    async def interpret(self, given: Sequence[Given], trace: Trace) -> Interpreted:
        """Latents, factors and likelihood of everything given, in order."""
        with self._admitted(given):
            parts = await _together([self._interpret_one(one, trace) for one in given])
            found = parts[0] if len(parts) == 1 else Interpreted.joined(parts)
            if HEAD in self._stages:
                ((probabilities,),) = await self._pass(HEAD, found.latents, trace, _field_of_all(given))
                found = replace(found, probabilities=probabilities)
        return found

    async def _interpret_one(self, given: Given, trace: Trace) -> Interpreted:
        if given.kind == "factors":
            ((latents, log_dets),) = await self._pass(("inverse",), given.items, trace, given.field_of)
            return Interpreted(latents, given.items, *self._likelihoods(given.items, -log_dets))
        if given.kind == "latent":
            (scored,) = await self._pass(("transform",), given.items, trace, given.field_of)
            return Interpreted(given.items, *scored)
        (latents,), scored = await self._pass(("encoder", "transform"), given.items, trace, given.field_of)
        return Interpreted(latents, *scored)

    async def edit(self, targets: Sequence[Given], edits: Sequence[PendingEdit], trace: Trace) -> Decoded:
        """Targets with all edits applied in order, decoded.

        Targets and sources go through the encoder and the transform together. A source of one item
        serves all targets, one of N items goes item by item.
        """
        self._need_decoder()
        wanted = [*targets, *(pending.source for pending in edits if pending.source is not None)]
        with self._admitted(wanted):
            found = await self._factors_of_all(wanted, trace)
            given, sources = _joined(found[: len(targets)]), iter(found[len(targets) :])
            factors = given
            for pending in edits:
                edit = pending.edit
                if pending.source is not None:
                    assert isinstance(edit.operation, Replace)
                    edit = replace(edit, operation=replace(edit.operation, source=next(sources)))
                factors = apply_edit(factors, edit, self.layout)

            def to_blame(row: int) -> str:
                """An edit that made the values of a target larger, or else the target."""
                grown = np.abs(factors[row]).max() > np.abs(given[row]).max()
                return "edits" if grown else _field_of_all(targets)(row)

            return Decoded(await self._decode(factors, trace, to_blame), factors)

    async def sample(
        self,
        count: int,
        *,
        seed: int,
        temperature: float,
        fixed: Sequence[tuple[str, Array | Given]],
        trace: Trace,
    ) -> AsyncIterator[tuple[int, Decoded, Trace]]:
        """Draws from the prior in order: the index of the first, some images, and where their time went."""
        self._need_decoder()
        sources = [value for _, value in fixed if isinstance(value, Given)]
        size = min(count, self.limits.samples_per_message)
        with self._admitted(sources, size):  # once for the whole stream, so that it is not cut half-way
            held: list[tuple[str, Array]] = []
            for name, value in fixed:
                if isinstance(value, Given):
                    value = (await self.factors_of(value, trace))[0, self.layout.slice(name)]
                held.append((name, value))
            for first in range(0, count, size):
                indices = range(first, min(first + size, count))
                factors = np.float32(temperature) * draw_prior(seed, indices, self.layout.size)
                for name, values in held:
                    factors[:, self.layout.slice(name)] = values
                images = await self._decode(factors, trace, lambda _: "fixed" if held else "temperature")
                yield first, Decoded(images, factors), trace
                trace = Trace()

    async def _decode(self, factors: Array, trace: Trace, field_of: Callable[[int], str]) -> Array:
        _, (images,) = await self._pass(("inverse", "decoder"), factors, trace, field_of)
        return images

    def _need_decoder(self) -> None:
        if ("inverse", "decoder") not in self._stages:
            raise Unsupported(f"the model '{self.manifest.name}' has no decoder, so it can interpret only")


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
