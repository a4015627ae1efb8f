"""Named slices of a factor vector."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iin_bundle.errors import BundleError

__all__ = ["RESIDUAL", "FactorLayout", "FactorSlice"]

RESIDUAL = "residual"


@dataclass(frozen=True, kw_only=True)
class FactorSlice:
    """One factor: dimensions `start` to `start + size` (exclusive) of `z~`."""

    name: str
    """Unique name; `residual` holds what no other factor names."""
    start: int
    """First dimension, counted from 0."""
    size: int
    """Number of dimensions, at least 1."""


@dataclass(frozen=True)
class FactorLayout:
    """How a factor vector `z~` of `size` dimensions splits into named slices that cover it exactly once."""

    slices: tuple[FactorSlice, ...]
    size: int

    def __post_init__(self) -> None:
        names = [part.name for part in self.slices]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise BundleError(f"factors: expected unique names, got {', '.join(repeated)} more than once")
        if "" in names:
            raise BundleError("factors: expected a name for every factor, got an empty one")
        if RESIDUAL not in names:
            raise BundleError(f"factors: expected one named '{RESIDUAL}', got {', '.join(names) or 'none'}")
        position = 0
        for part in sorted(self.slices, key=lambda part: part.start):
            if part.size < 1:
                raise BundleError(f"factors: {part.name}: expected a size of at least 1, got {part.size}")
            if part.start != position:
                fault = "overlap" if part.start < position else "leave a gap"
                raise BundleError(
                    f"factors: expected slices that cover dimensions 0 to {self.size} once, but they {fault} "
                    f"at {part.name} (starts at {part.start}, the ones before end at {position})"
                )
            position += part.size
        if position != self.size:
            raise BundleError(f"factors: expected slices that cover {self.size} dimensions, got {position}")

    @classmethod
    def from_sizes(cls, sizes: dict[str, int]) -> "FactorLayout":
        """Consecutive slices in the order of `sizes`."""
        slices, start = [], 0
        for name, size in sizes.items():
            slices.append(FactorSlice(name=name, start=start, size=size))
            start += size
        return cls(tuple(slices), start)

    @property
    def names(self) -> tuple[str, ...]:
        """Factor names in the manifest's order."""
        return tuple(part.name for part in self.slices)

    def __iter__(self) -> Iterator[FactorSlice]:
        return iter(self.slices)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def size_of(self, name: str) -> int:
        """Number of dimensions of the factor `name`."""
        where = self.slice(name)
        return int(where.stop - where.start)

    def slice(self, name: str) -> slice:
        """Where `name` lies in the last axis of a factor array; `KeyError` when there is no such factor."""
        for part in self.slices:
            if part.name == name:
                return slice(part.start, part.start + part.size)
        raise KeyError(name)

    def mask(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """Which dimensions belong to the factors `names`, `(D,)`; `KeyError` when there is no such factor."""
        mask = np.zeros(self.size, bool)
        for name in names:
            mask[self.slice(name)] = True
        return mask
