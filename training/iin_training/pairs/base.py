"""Pairs of images and the set of factors that they share: the batch, the contract of a source, and what sources use."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from iin_bundle.factors import RESIDUAL
from torch import Tensor

from iin_training.data.digests import digest_of, knows, own_digest
from iin_training.data.images import Images

__all__ = [
    "MIN_PAIRS",
    "PairBatch",
    "PairSource",
    "Shares",
    "check_batch",
    "check_concept",
    "check_count",
    "check_factors",
    "check_spelling",
    "draw_numbers",
    "drawable",
    "fingerprint",
    "is_source",
    "join_batches",
    "over",
    "split_evenly",
]

FEW = 64  # pairs that stand for a source without a digest
MIN_PAIRS = 10
"""Fewest different pairs that a concept can be learnt from; a source with fewer is refused."""


@dataclass(frozen=True)
class PairBatch:
    """Pictures in pairs, and what each pair shares."""

    images_a: Tensor
    """First pictures, `(N, C, H, W)` in the model's range."""
    images_b: Tensor
    """Second pictures, likewise."""
    shared: Tensor
    """Boolean `(N, K)`: does the pair share factor k, in the order of the factor names given."""
    similarity: Tensor | None = None
    """Correlation of what the pair shares, `(N,)` float32 in [0, 1), NaN where the pair does not say; None where
    none of them does."""

    def __len__(self) -> int:
        return len(self.shared)

    def similarity_or(self, default: float) -> Tensor:
        """Similarity of each pair, `(N,)` float32, with `default` where the pair does not say."""
        if self.similarity is None:
            return torch.full((len(self),), default, device=self.shared.device)
        return self.similarity.nan_to_num(nan=default)


class PairSource(Protocol):
    """Where pairs come from.

    A source may also have a method `digest() -> str`: a hexadecimal sha256 over everything that decides its pairs, all
    images and labels included. Without one, a changed data set may pass for the old one, see `fingerprint`.

    It may have a method `over(change: Callable[[Images], Images]) -> PairSource | None`: the same pairs, drawn from
    the same states of the generator, of other images, see `over`. Without one, images are encoded at every step.

    And a method `drawable() -> Iterable[tuple[Images, Tensor]]`: its sets of images, each with the numbers `(n,)` of
    those that its pairs can be of. Held-out pictures that T is trained on are found by it, see `drawable`.
    """

    @property
    def concepts(self) -> tuple[str, ...]:
        """Named factors that its pairs are said to share or to differ in, never `residual`.

        A model that is trained on them must have each as a factor.
        """
        ...

    def draw(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw `count` pairs, at least 1.

        Args:
            count: number of pairs N.
            factors: names of the model's K factors, `residual` included, in the order of the columns of `shared`.
            generator: all randomness comes from it, so its state decides the batch.

        Raises:
            ValueError: where a pair speaks of a concept that is not among `factors`.

        """
        ...


def is_source(thing: object) -> bool:
    """Whether `thing` has what a `PairSource` must have."""
    return hasattr(thing, "concepts") and hasattr(thing, "draw")


@dataclass(frozen=True)
class Shares:
    """The set of factors that a pair shares: the named ones, or everything but the named ones."""

    names: frozenset[str]
    """Concepts, or `residual`."""
    everything_but: bool = False
    """True where the pair shares all factors of the model except `names`."""

    def __contains__(self, name: str) -> bool:
        return (name in self.names) != self.everything_but

    @property
    def concepts(self) -> frozenset[str]:
        """The names without `residual`."""
        return self.names - {RESIDUAL}

    @property
    def key(self) -> tuple[str | bool, ...]:
        """The same for equal sets and no others, in every process: for digests."""
        return (self.everything_but, *sorted(self.names))

    def columns(self, count: int, factors: Sequence[str]) -> Tensor:
        """Boolean `(count, K)`, a row a pair, a column a factor; the names must be among `factors`."""
        check_factors(self.names, factors)
        return torch.tensor([name in self for name in factors]).expand(count, -1)

    def __str__(self) -> str:
        return ";".join(("!" if self.everything_but else "") + name for name in sorted(self.names)) or "nothing"


def check_concept(name: str, field: str = "concept") -> str:
    """`name`, where it can name a factor; else `ValueError` for `field`."""
    fits = isinstance(name, str) and name and name == name.strip()
    if not fits or name.lower() == RESIDUAL or name.startswith("!") or ";" in name:
        raise ValueError(
            f"{field}: expected a name without blanks around it, ! in front or ; in it, other than {RESIDUAL} "
            f"(which stands for everything that has no name), got {name!r}"
        )
    return name


def check_spelling(concepts: Sequence[str], field: str) -> None:
    """Refuse concepts that differ by letter case or punctuation only, as a slip makes them; `field` is for messages."""
    seen: dict[str, str] = {}
    for name in concepts:
        other = seen.setdefault(re.sub(r"[\W_]", "", name.casefold()) or name, name)
        if other != name:
            raise ValueError(
                f"{field}: expected one spelling of a concept, got {other!r} and {name!r}; "
                "rename one, to the same name or to one that differs more"
            )


def check_factors(names: Collection[str], factors: Sequence[str]) -> None:
    """Refuse `factors` that miss one of `names`, or hold a name twice."""
    missing = sorted(set(names) - set(factors))
    if missing or len(set(factors)) != len(factors):
        fault = f"no {', '.join(missing)}" if missing else "one of them twice"
        raise ValueError(
            f"factors: expected every factor once that pairs speak of, got {', '.join(factors)} and {fault}; "
            "add it to the model's factors, or leave out the source of such pairs"
        )


def check_count(count: int) -> None:
    """Refuse a number of pairs that is not positive."""
    if count < 1:
        raise ValueError(f"count: expected at least 1 pair, got {count}")


def check_batch(batch: PairBatch, count: int, factors: Sequence[str], field: str) -> None:
    """Refuse a batch of a user's own source, called `field`, that does not keep what `PairBatch` promises.

    Only the first batch is checked.

    Raises:
        ValueError: where `count` pairs, masks of `factors`, or similarities in [0, 1) are expected and not given.

    """
    sides = tuple(batch.images_a.shape), tuple(batch.images_b.shape)
    if sides[0] != sides[1] or sides[0][:1] != (count,) or batch.images_a.dtype != batch.images_b.dtype:
        raise ValueError(
            f"{field}: expected images_a and images_b of one dtype and one shape, ({count}, C, H, W), got "
            f"{batch.images_a.dtype} of {sides[0]} and {batch.images_b.dtype} of {sides[1]}; "
            "let draw return as many pairs as it is asked for"
        )
    shared = tuple(batch.shared.shape)
    if batch.shared.dtype != torch.bool or shared != (count, len(factors)):
        raise ValueError(
            f"{field}: expected shared to be torch.bool of ({count}, {len(factors)}), a row a pair and a column each "
            f"for {', '.join(factors)}, got {batch.shared.dtype} of {shared}; use Shares.columns, or .bool()"
        )
    if batch.similarity is None:
        return
    told = batch.similarity.float()  # as T's loss takes it: in 32 bits a number may round to 1, a variance of 0
    wrong = told[(told < 0) | (told >= 1)]
    if told.shape != (count,) or len(wrong):
        given = f"{wrong[0]:g} among them" if len(wrong) else f"numbers of {tuple(told.shape)}"
        raise ValueError(
            f"{field}: expected similarity to be None or ({count},) numbers in [0, 1) as float32, got {given}; "
            "give at most 0.999, or NaN where a pair does not say"
        )


def split_evenly(count: int, parts: int, generator: torch.Generator) -> list[int]:
    """`count` in `parts` numbers that differ by at most 1; which are larger is drawn, so none is smaller for ever."""
    numbers = [count // parts] * parts
    for part in torch.randperm(parts, generator=generator)[: count % parts].tolist():
        numbers[part] += 1
    return numbers


def draw_numbers(count: int, shares: Sequence[float], generator: torch.Generator) -> list[int]:
    """`count` in numbers that chance decides, each as large on average as its share, of sum 1, says.

    For batches in which a share would round to 0, so that what is rare would never be drawn.
    """
    drawn = torch.multinomial(torch.tensor(shares), count, replacement=True, generator=generator)
    numbers: list[int] = drawn.bincount(minlength=len(shares)).tolist()
    return numbers


def join_batches(batches: Iterable[PairBatch]) -> PairBatch:
    """One batch after another; `ValueError` where their images differ in shape."""
    batches = list(batches)
    if len(batches) == 1:
        return batches[0]
    shapes: Collection[tuple[int, ...]] = {tuple(batch.images_a.shape[1:]) for batch in batches}
    if len(shapes) > 1:
        raise ValueError(
            "images: expected the same channels, height and width from all sources of pairs, got "
            + " and ".join("x".join(map(str, shape)) for shape in sorted(shapes))
        )
    similarity = None
    if any(batch.similarity is not None for batch in batches):
        similarity = torch.cat([batch.similarity_or(torch.nan) for batch in batches])
    return PairBatch(
        torch.cat([batch.images_a for batch in batches]),
        torch.cat([batch.images_b for batch in batches]),
        torch.cat([batch.shared for batch in batches]),
        similarity,
    )


def over(source: PairSource, change: Callable[[Images], Images]) -> PairSource | None:
    """The same pairs, of `change(images)` in place of `images`; None where the source cannot say which they are.

    The images of its batches are then whatever the new images load, of any shape `(N, ...)`.
    """
    if not knows(source, "over", "draw"):
        return None
    return cast("PairSource | None", source.over(change))  # type: ignore[attr-defined]


def drawable(source: PairSource) -> Iterable[tuple[Images, Tensor]]:
    """Sets of images, each with the numbers `(n,)` of those that pairs can be of; none where `source` does not say."""
    return source.drawable() if knows(source, "drawable", "draw") else ()  # type: ignore[attr-defined]


def fingerprint(source: PairSource) -> str:
    """Hexadecimal sha256 by which a source is known again.

    It is the source's own `digest()`, which all sources of this package have: there any change that alters pairs is
    noticed, wherever it is. A source without one, or a class that overrides `draw` and only inherits `digest`, is
    known by the first 64 pairs that it draws; a change that does not show in them is not noticed.
    """
    known = own_digest(source, "draw")
    if known is not None:
        return known
    factors = (RESIDUAL, *source.concepts)
    batch = source.draw(FEW, factors, torch.Generator().manual_seed(0))
    return digest_of(factors, batch.images_a, batch.images_b, batch.shared, batch.similarity_or(-1.0))
