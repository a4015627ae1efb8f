"""Pairs that the user lists in a file."""

import math
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

import torch
from iin_bundle.factors import RESIDUAL
from torch import Tensor

from iin_training.data.digests import digest_of, images_digest
from iin_training.data.images import ImageFiles, Images
from iin_training.pairs.base import (
    MIN_PAIRS,
    PairBatch,
    Shares,
    check_count,
    check_factors,
    join_batches,
    load_pairs,
    over_images,
    split_evenly,
)
from iin_training.pairs.pair_lists import read_pair_list
from iin_training.pairs.user_files import Faults

__all__ = ["ListedPairs"]


class ListedPairs:
    """Pairs out of a list, every set of shared factors as often as any other.

    The two images of a pair that shares the residual are distorted alike.
    Source: Esser, Rombach, Ommer (CVPR 2020), section 3.2; pairs that share everything but one concept are what its
    sketches give.
    """

    def __init__(self, images: Images, path: Path) -> None:
        """Read the list.

        Args:
            images: the images that it names.
            path: a `.csv` or `.jsonl` file, see `read_pair_list`. Pairs with a picture that `ImageFiles` left out as
                broken are left out too.

        Raises:
            ValueError: with file and line of every mistake; where a set of shared factors has too few pairs.

        """
        numbers = {images.name(index): index for index in range(len(images))}
        left_out = images.left_out if isinstance(images, ImageFiles) else frozenset[str]()
        faults = Faults(path)
        by_set: dict[Shares, list[tuple[int, int, float]]] = {}
        lines: dict[Shares, int] = {}
        for pair in read_pair_list(path, faults):
            rows = by_set.setdefault(pair.shares, [])
            lines.setdefault(pair.shares, pair.line)
            named = (pair.image_a, pair.image_b)
            if unknown := [name for name in named if name not in numbers and name not in left_out]:
                told = f"expected names of images, such as {next(iter(numbers))}, got {' and '.join(unknown)}"
                faults.add(pair.line, told)
            elif not left_out.intersection(named):
                similarity = math.nan if pair.similarity is None else pair.similarity
                rows.append((numbers[pair.image_a], numbers[pair.image_b], similarity))
        faults.raise_any()
        if not by_set:
            raise ValueError(f"{path}: expected a list of pairs, got none")
        for shares, rows in by_set.items():
            if (different := len({frozenset(row[:2]) for row in rows})) < MIN_PAIRS:
                raise ValueError(
                    f"{path}:{lines[shares]}: expected at least {MIN_PAIRS} different pairs of readable images for "
                    f"each set of shared factors, got {different} that share {shares}; list more, or take these out"
                    + _meant(shares, by_set)
                )
        self._images = images
        self._sets = list(by_set)
        self._numbers = [torch.tensor([row[:2] for row in by_set[shares]]) for shares in self._sets]
        self._similarity = [torch.tensor([row[2] for row in by_set[shares]]) for shares in self._sets]
        self._similarity_told = not all(values.isnan().all() for values in self._similarity)
        self.concepts = tuple(dict.fromkeys(name for shares in by_set for name in sorted(shares.concepts)))

    def draw(self, count: int, factors: tuple[str, ...], generator: torch.Generator) -> PairBatch:
        """Draw pairs, see `PairSource.draw`; those that share the residual come first."""
        check_count(count)
        check_factors(self.concepts, factors)
        sizes = split_evenly(count, len(self._sets), generator)
        rows = [
            torch.randint(len(listed), (size,), generator=generator)
            for listed, size in zip(self._numbers, sizes, strict=True)
        ]
        parts = []
        for alike in (True, False):
            own = [
                number for number, shares in enumerate(self._sets) if (RESIDUAL in shares) == alike and sizes[number]
            ]
            if not own:
                continue
            first, second = torch.cat([self._numbers[number][rows[number]] for number in own]).T
            shared = torch.cat([self._sets[number].columns(sizes[number], factors) for number in own])
            similarity = torch.cat([self._similarity[number][rows[number]] for number in own])
            parts.append(
                PairBatch(
                    *load_pairs(self._images, first, second, generator, alike=alike),
                    shared,
                    similarity if self._similarity_told else None,
                )
            )
        return join_batches(parts)

    over = over_images

    def drawable(self) -> Iterable[tuple[Images, Tensor]]:
        """Its images, and which of them are in pairs, see `pairs.drawable`."""
        return [(self._images, torch.cat(self._numbers).unique())]

    def digest(self) -> str:
        """Hexadecimal sha256 over images, sets of shared factors, pairs and similarities, in the list's order."""
        sets = (shares.key for shares in self._sets)
        return digest_of("ListedPairs", images_digest(self._images), *sets, *self._numbers, *self._similarity)


def _meant(shares: Shares, listed: Iterable[Shares]) -> str:
    """The question whether a name in `shares` is a slip for one in the other sets that are listed."""
    others = {name for other in listed if other != shares for name in other.concepts} - shares.concepts
    for name in sorted(shares.concepts):
        if near := get_close_matches(name, sorted(others), n=1, cutoff=0.8):
            return f"; or is {name} to be {near[0]}?"
    return ""
