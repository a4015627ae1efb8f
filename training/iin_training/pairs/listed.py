"""Pairs that the user lists in a file: CSV, or JSON lines."""

import contextlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from iin_bundle.factors import RESIDUAL

from iin_training.data.digests import digest_of, images_digest
from iin_training.data.images import ImageFiles, Images, names_of, printable
from iin_training.pairs.base import MIN_PAIRS, Shares, check_concept, check_spelling, split_evenly
from iin_training.pairs.image_pairs import Chosen, ImagePairs
from iin_training.pairs.user_files import Faults, csv_rows, opened, other_separator, spelling_difference, whole_rows

__all__ = ["ListedPair", "ListedPairs", "read_pair_list"]

REQUIRED = ("image_a", "image_b", "shared")
OPTIONAL = ("similarity",)


class ListedPairs(ImagePairs):
    """Pairs out of a list, every set of shared factors as often as any other.

    The two images of a pair that shares the residual are distorted alike.
    Source: Esser, Rombach, Ommer (CVPR 2020), section 3.2; pairs that share everything but one concept are what its
    sketches give.
    """

    def __init__(self, images: Images, path: str | Path) -> None:
        """Read the list.

        Args:
            images: the images that it names.
            path: a `.csv` or `.jsonl` file, see `read_pair_list`. Pairs with a picture that `ImageFiles` left out as
                broken are left out too.

        Raises:
            ValueError: with file and line of every mistake; where a set of shared factors has too few pairs.

        """
        numbers = {name: index for index, name in enumerate(names_of(images))}
        left_out = images.left_out if isinstance(images, ImageFiles) else frozenset[str]()
        faults = Faults(path)
        by_set: dict[Shares, list[tuple[int, int, float]]] = {}
        lines: dict[Shares, int] = {}
        unknown: dict[int, list[str]] = {}
        for pair in read_pair_list(path, faults):
            rows = by_set.setdefault(pair.shares, [])
            lines.setdefault(pair.shares, pair.line)
            named = (pair.image_a, pair.image_b)
            if missing := [name for name in named if name not in numbers and name not in left_out]:
                unknown[pair.line] = missing
            elif not left_out.intersection(named):
                similarity = math.nan if pair.similarity is None else pair.similarity
                rows.append((numbers[pair.image_a], numbers[pair.image_b], similarity))
        remedy = ""
        if difference := spelling_difference(numbers, itertools.chain.from_iterable(unknown.values())):
            remedy = f"; they differ in {difference} alone, so write those of the list as the images are named"
        elif isinstance(images, ImageFiles) and not any(by_set.values()):  # a few unknown names are slips
            remedy = "; give ImageFiles the folder that the names of the list are relative to"
        for line, missing in unknown.items():
            told = f"expected names of images, such as {printable(images.name(0))}, got {' and '.join(missing)}"
            faults.add(line, told + remedy)
            remedy = ""  # is said once
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
        self._sets = list(by_set)
        self._numbers = [torch.tensor([row[:2] for row in by_set[shares]]) for shares in self._sets]
        self._similarity = [torch.tensor([row[2] for row in by_set[shares]]) for shares in self._sets]
        self._similarity_told = not all(values.isnan().all() for values in self._similarity)
        concepts = tuple(dict.fromkeys(name for shares in by_set for name in sorted(shares.concepts)))
        check_spelling(concepts, str(path))
        super().__init__(images, concepts, torch.cat(self._numbers).unique())

    def _choose(self, count: int, generator: torch.Generator) -> list[Chosen]:
        sizes = split_evenly(count, len(self._sets), generator)
        chosen = []
        for shares, pairs, similarity, size in zip(self._sets, self._numbers, self._similarity, sizes, strict=True):
            rows = torch.randint(len(pairs), (size,), generator=generator)
            first, second = pairs[rows].T
            chosen.append(Chosen(shares, first, second, similarity[rows] if self._similarity_told else None))
        return chosen

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


@dataclass(frozen=True)
class ListedPair:
    """One pair of a list."""

    line: int
    """Where it stands, from 1."""
    image_a: str
    """Name of the first image."""
    image_b: str
    """Name of the second image."""
    shares: Shares
    """What they share."""
    similarity: float | None
    """Correlation of what they share in [0, 1); None where the list does not say."""


def read_pair_list(path: str | Path, faults: Faults) -> Iterator[ListedPair]:
    """Read the pairs of a list one by one, noting mistakes in `faults`.

    A `.csv` file has a header with the columns image_a, image_b, shared and, if wanted, similarity, in any order; a
    `.jsonl` file has an object with these keys on each line. `shared` names the factors, with `;` between them
    (or a JSON list): concepts, `residual`, or, with `!` before each, all factors of the model but these.
    `similarity` is a number in [0, 1); empty or null says nothing.

    Raises:
        ValueError: where the file cannot be read as such a list at all.

    """
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines}
    ending = Path(path).suffix.lower()
    if ending not in readers:
        raise ValueError(f"{path}: expected a list of pairs in a file ending in {' or '.join(readers)}")
    with opened(path, "list of pairs") as file:
        for line, fields in readers[ending](file, faults):
            pair = _pair(line, fields, faults)
            if pair is not None:
                yield pair


def _read_csv(file: Iterable[str], faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = csv_rows(file, faults)
    _, names = next(rows, (1, []))
    allowed = (*REQUIRED, *OPTIONAL)
    if not set(REQUIRED) <= set(names) or not set(names) <= set(allowed) or len(set(names)) != len(names):
        given = ", ".join(names) or "nothing"
        told = f"expected a header with {', '.join(REQUIRED)} and perhaps {', '.join(OPTIONAL)}, got {given}"
        faults.stop(1, told + other_separator(given))
    for line, cells in whole_rows(rows, len(names), faults):
        fields: dict[str, Any] = dict(zip(names, cells, strict=True))
        with contextlib.suppress(ValueError):  # told with those of JSON lines
            fields["similarity"] = float(fields["similarity"]) if fields.get("similarity") else None
        yield line, fields


def _read_json_lines(file: Iterable[str], faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            fields = json.loads(text)
        except ValueError as error:
            faults.add(line, f"expected a JSON object on one line: {error}")
            continue
        if not isinstance(fields, dict) or not set(REQUIRED) <= set(fields) <= {*REQUIRED, *OPTIONAL}:
            given = ", ".join(fields) if isinstance(fields, dict) else type(fields).__name__
            faults.add(
                line,
                f"expected an object with {', '.join(REQUIRED)} and perhaps {', '.join(OPTIONAL)}, got {given}",
            )
            continue
        yield line, fields


def _pair(line: int, fields: dict[str, Any], faults: Faults) -> ListedPair | None:
    try:
        image_a, image_b = (_file(fields[key], key) for key in ("image_a", "image_b"))
        if image_a == image_b:
            raise ValueError(f"image_a, image_b: expected two different files, got {image_a} twice")
        return ListedPair(line, image_a, image_b, _shares(fields["shared"]), _similarity(fields.get("similarity")))
    except ValueError as error:
        faults.add(line, str(error))
        return None


def _file(given: Any, key: str) -> str:
    if type(given) is int:  # as JSON writes the name of an image in memory
        return str(given)
    if not isinstance(given, str) or not given:
        raise ValueError(f"{key}: expected the name of a file, got {given!r}")
    return PurePosixPath(given).as_posix()


def _shares(given: Any) -> Shares:
    names = given.split(";") if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not "".join(names).strip():
        raise ValueError(f"shared: expected names of factors, got {given!r}; leave out pairs that share nothing")
    if isinstance(given, str) and "," in given:
        raise ValueError(f"shared: expected ; between names, and none with a comma in it, got {given!r}")
    names = [name.strip() for name in names]
    negated = {name.startswith("!") for name in names}
    if len(negated) > 1:
        raise ValueError(f"shared: expected ! before every name or before none, got {given!r}")
    bare = [name.removeprefix("!").strip() for name in names]
    return Shares(
        frozenset(name if name == RESIDUAL else check_concept(name, "shared") for name in bare),
        everything_but=negated == {True},
    )


def _similarity(given: Any) -> float | None:
    if given is None:
        return None
    # In 32 bits a number may round to 1, which leaves a variance of 0.
    if isinstance(given, bool) or not isinstance(given, int | float) or not (0 <= given < 1 and np.float32(given) < 1):
        raise ValueError(f"similarity: expected a number in [0, 1), got {given!r}; give at most 0.999, or leave it out")
    return float(given)
