"""Files that list pairs of pictures and what they share: CSV, or JSON lines."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from iin_bundle.factors import RESIDUAL

from iin_training.pairs.base import Shares, check_concept
from iin_training.pairs.user_files import Faults, csv_rows, opened, other_separator

__all__ = ["ListedPair", "read_pair_list"]

REQUIRED = ("image_a", "image_b", "shared")
OPTIONAL = ("similarity",)


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


def read_pair_list(path: Path, faults: Faults) -> Iterator[ListedPair]:
    """Read the pairs of a list one by one, noting mistakes in `faults`.

    A `.csv` file has a header with the columns image_a, image_b, shared and, if wanted, similarity, in any order; a
    `.jsonl` file has an object with these keys on each line. `shared` names the factors, with `;` between them
    (or a JSON list): concepts, `residual`, or, with `!` before each, all factors of the model but these.
    `similarity` is a number in [0, 1); empty or null says nothing.

    Raises:
        ValueError: where the file cannot be read as such a list at all.

    """
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: expected a list of pairs in a file ending in {' or '.join(readers)}")
    with opened(path, "list of pairs") as file:
        for line, fields in readers[path.suffix.lower()](file, faults):
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
        faults.add(1, told + other_separator(given))
        return
    for line, cells in rows:
        if not any(cells):
            continue
        if len(cells) != len(names):
            faults.add(line, f"expected {len(names)} cells, as in the header, got {len(cells)}")
            continue
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
        except json.JSONDecodeError as error:
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
        raise ValueError(f"similarity: expected a number in [0, 1), got {given!r}")
    return float(given)
