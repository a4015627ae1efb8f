"""Pairs from known generative factors: images rendered from values that are drawn, some of them once for both."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias

import torch
from iin_bundle.factors import RESIDUAL
from torch import Tensor

from iin_training.data.digests import digest_of
from iin_training.pairs.base import (
    PairBatch,
    Shares,
    check_concept,
    check_count,
    check_factors,
    join_batches,
    split_evenly,
)

__all__ = ["EverythingBut", "GenerativeFactors", "Render", "Sampler", "Sharing"]

RENDERED, BATCHES = 64, 4  # pairs in a batch, and batches, that stand for a source

Sampler: TypeAlias = Callable[[int, torch.Generator], Tensor]
"""`sampler(n, generator)`: n values of one factor, independent of each other, `(n, ...)` of any dtype."""

Render: TypeAlias = Callable[[Mapping[str, Tensor], torch.Generator], Tensor]
"""`render(values, generator)`: images `(n, C, H, W)` float32 in the model's range, from n values of each factor.
What it draws itself, from `generator` only, belongs to the residual."""


class GenerativeFactors:
    """Pairs that share the value of exactly one factor; all others are drawn anew for the second image.

    Source: Esser, Rombach, Ommer (CVPR 2020), section 4, ColorMNIST.
    """

    def __init__(self, render: Render, factors: Mapping[str, Sampler]) -> None:
        """Keep how images are made.

        Args:
            render: makes images of values.
            factors: a sampler for each factor. One under the name `residual` is not a concept: it draws what
                has no name.

        """
        self.concepts = tuple(check_concept(name, "factors") for name in factors if name != RESIDUAL)
        if not self.concepts:
            raise ValueError(f"factors: expected at least one besides {RESIDUAL}, got none")
        self._render = render
        self._samplers = dict(factors)

    def draw(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw pairs, see `PairSource.draw`; as many of one concept as of another."""
        check_count(count)
        check_factors(self.concepts, factors)
        numbers = split_evenly(count, len(self.concepts), generator)
        kinds = [(Shares(frozenset({concept})), number) for concept, number in zip(self.concepts, numbers, strict=True)]
        return join_batches(self.draw_sharing(shares, number, factors, generator) for shares, number in kinds if number)

    def draw_sharing(
        self, shares: Shares, count: int, factors: tuple[str, ...], generator: torch.Generator
    ) -> PairBatch:
        """Draw pairs that share the set `shares`, see `PairSource.draw`."""
        check_count(count)
        shared = shares.columns(count, factors)
        values_a = self._values(self._samplers, count, generator)
        values_b = values_a | self._values((name for name in self._samplers if name not in shares), count, generator)
        again = generator.clone_state() if RESIDUAL in shares else generator
        images_a = self._images(values_a, count, generator)
        return PairBatch(images_a, self._images(values_b, count, again), shared)

    def digest(self) -> str:
        """Hexadecimal sha256 over names of factors and the first 256 pairs that share nothing, compared bit by bit.

        What `render` and the samplers do cannot be read, so that a change which these 512 images do not show is not
        noticed.
        """
        factors = (RESIDUAL, *self.concepts)
        generator = torch.Generator().manual_seed(0)
        batches = (self.draw_sharing(Shares(frozenset()), RENDERED, factors, generator) for _ in range(BATCHES))
        images = (digest_of(batch.images_a, batch.images_b) for batch in batches)
        return digest_of("GenerativeFactors", tuple(self._samplers), *images)

    def _values(self, names: Iterable[str], count: int, generator: torch.Generator) -> dict[str, Tensor]:
        values = {name: self._samplers[name](count, generator) for name in names}
        for name, value in values.items():
            if not value.ndim or len(value) != count:
                raise ValueError(
                    f"factors: expected {count} values, ({count}, ...), from the sampler of {name}, "
                    f"got a tensor of {tuple(value.shape)}"
                )
        return values

    def _images(self, values: Mapping[str, Tensor], count: int, generator: torch.Generator) -> Tensor:
        # Copies: what both sides share would differ after a render that changes it in place.
        images = self._render({name: value.clone() for name, value in values.items()}, generator)
        if images.dtype != torch.float32 or images.ndim != 4 or len(images) != count:
            raise ValueError(
                f"render: expected float32 images of ({count}, C, H, W), got {images.dtype} of {tuple(images.shape)}"
            )
        return images


class _Rendered:
    """Pairs of rendered images that share one set of factors."""

    def __init__(self, source: GenerativeFactors, shares: Shares, field: str) -> None:
        known = (*source.concepts, RESIDUAL)
        unknown = sorted(shares.names - set(known))
        if unknown:
            raise ValueError(f"{field}: expected factors of the source ({', '.join(known)}), got {', '.join(unknown)}")
        self.concepts = tuple(name for name in source.concepts if name in shares.names)
        self._source, self._shares = source, shares

    def draw(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw pairs, see `PairSource.draw`."""
        return self._source.draw_sharing(self._shares, count, factors, generator)

    def digest(self) -> str:
        """Hexadecimal sha256 over the set shared and the rendered source, see `GenerativeFactors.digest`."""
        return digest_of("Rendered", self._shares.key, self._source.digest())


class Sharing(_Rendered):
    """Pairs of a source of rendered images that share exactly the given set of factors."""

    def __init__(self, source: GenerativeFactors, shared: Collection[str]) -> None:
        """Share `shared`: names of concepts of the source, or `residual`; none makes unrelated pairs."""
        if isinstance(shared, str):
            raise ValueError(f"shared: expected a collection of names, got the string {shared!r}; write [{shared!r}]")
        super().__init__(source, Shares(frozenset(shared)), "shared")


class EverythingBut(_Rendered):
    """Pairs of a source of rendered images that share every factor of the model, `residual` included, except one."""

    def __init__(self, source: GenerativeFactors, concept: str) -> None:
        """Draw only `concept` anew for the second image."""
        super().__init__(source, Shares(frozenset({concept}), everything_but=True), "concept")
