"""Tables of attributes beside pictures: CSV files, and CelebA's own list."""

import itertools
import math
import re
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from iin_training.pairs.base import check_concept
from iin_training.pairs.user_files import Faults, csv_rows, opened, other_separator, whole_rows

__all__ = ["BINS", "MANY", "Attribute", "Attributes", "read_attributes"]

MANY = 20
"""A numeric column of more different values than this is binned."""
BINS = 10
"""Quantiles that it is binned into."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)  # float() takes 1_12, a name, for 112
FEW = 10  # times as many different numbers as texts, and the texts of a column are mistakes
MISSING = {"", "NA", "N/A", "n/a", "<NA>", "NULL", "null", "None"}  # as R, pandas and databases write it; and nan


@dataclass(frozen=True)
class Attribute:
    """One column of a table: the value of a concept for each picture."""

    codes: NDArray[np.int64]
    """Value of each row, `(N,)`, as its place in `values`; -1 where it is missing."""
    values: tuple[str, ...]
    """The different values as text, of a binned column as the range of each bin."""


@dataclass(frozen=True)
class Attributes:
    """A table of attributes."""

    files: tuple[str, ...]
    """Name of the picture of each of N rows."""
    columns: Mapping[str, Attribute]
    """The columns by name of the concept, in the table's order."""


Table: TypeAlias = tuple[dict[str, int], dict[str, Attribute]]
"""Line of each picture's row by name of its file, in order; and the columns as they are written."""


def read_attributes(path: str | Path, *, categorical: Collection[str] = ()) -> Attributes:
    """Read a table of attributes.

    Two formats are told apart by the first line:

    - CSV with commas and a header: the first column names the picture's file, every other column is a concept.
      Cells that are empty, NA, N/A, n/a, <NA>, NULL, null, None, or nan in any case are missing values (none is not).
    - CelebA's `list_attr_celeba.txt`: the number of rows; the names of the attributes; then on each line a file and
      its values, separated by blanks.

    Values are categories. Only a column of numbers with more than `MANY` different values is binned into at most
    `BINS` quantiles, so that "same value" means "same bin". A few texts in such a column are refused.

    Args:
        path: the table, UTF-8.
        categorical: columns whose numbers are names, such as the number of a person, and are never binned.

    Raises:
        ValueError: where the table is broken, with file and line of every mistake, or a name is not a column's.

    """
    faults = Faults(path)
    with opened(path, "table of attributes") as file:
        first = file.readline()
        if first.strip().isdecimal():
            line_of, columns = _read_celeba(int(first), file, faults)
        else:
            file.seek(0)
            line_of, columns = _read_csv(file, faults)
    faults.raise_any()
    unknown = sorted(set(categorical) - set(columns))
    if unknown:
        raise ValueError(f"categorical: expected columns of {path} ({', '.join(columns)}), got {', '.join(unknown)}")
    lines = list(line_of.values())
    for name in columns.keys() - set(categorical):
        columns[name] = _numbers_understood(name, columns[name], lines, faults)
    faults.raise_any()
    return Attributes(tuple(line_of), columns)


def _read_csv(file: Iterable[str], faults: Faults) -> Table:
    rows = csv_rows(file, faults)
    _, header = next(rows, (1, []))
    names = header[1:]
    if not names:
        given = "".join(header)
        told = f"expected a header with file and at least one concept, separated by commas, got {given!r}"
        faults.stop(1, told + other_separator(given))
    return _collect(1, names, rows, faults)


def _read_celeba(count: int, file: Iterable[str], faults: Faults) -> Table:
    lines = iter(file)
    names = next(lines, "").split()
    if not names:
        faults.stop(2, "expected a header with the names of the attributes, got none")
    line_of, columns = _collect(2, names, ((line, text.split()) for line, text in enumerate(lines, 3)), faults)
    if len(line_of) != count:
        faults.add(1, f"expected {count} rows, as this line says, got {len(line_of)}; is the file whole?")
    return line_of, columns


def _collect(header: int, names: Sequence[str], rows: Iterable[tuple[int, list[str]]], faults: Faults) -> Table:
    """The table of `rows` (line, cells); cells are kept as codes, since the same few texts come again and again."""
    for name in names:
        try:
            check_concept(name, "name of a column")
        except ValueError as error:
            faults.add(header, str(error))
    if len(set(names)) != len(names):
        faults.add(header, "expected each name of a column once, got " + ", ".join(names))
    codes, values = [array("q") for _ in names], [dict[str, int]() for _ in names]
    lines: dict[str, int] = {}
    for line, cells in whole_rows(rows, 1 + len(names), faults):
        file = PurePosixPath(cells[0]).as_posix()
        if not cells[0] or file in lines:
            given = f"{file}, as on line {lines[file]}" if file in lines else "an empty one"
            faults.add(line, f"expected a file name that no other row has, got {given}")
            continue
        lines[file] = line
        for cell, column, known in zip(cells[1:], codes, values, strict=True):
            missing = cell in MISSING or cell.lower() == "nan"
            column.append(-1 if missing else known.setdefault(cell, len(known)))
    if not lines:
        faults.add(header, "expected a row for each picture, got none")
    texts = (Attribute(np.array(column, np.int64), tuple(known)) for column, known in zip(codes, values, strict=True))
    return lines, dict(zip(names, texts, strict=True))


def _is_number(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def _numbers_understood(name: str, column: Attribute, lines: Sequence[int], faults: Faults) -> Attribute:
    """A column of numbers with equal ones made one value (1 and 1.0), and binned where there are many.

    A few texts among many numbers are noted in `faults`: with them every number would be a category of its own.
    """
    texts = [code for code, value in enumerate(column.values) if not _is_number(value)]
    if len(column.values) - len(texts) > max(MANY, FEW * len(texts)):
        for code in texts:
            faults.add(
                lines[int(np.argmax(column.codes == code))],
                f"{name}: expected a number, as in most rows, got {column.values[code]!r}; mend it or leave it empty, "
                "or name the column in read_attributes' `categorical` where its numbers are names",
            )
    if texts or not column.values:
        return column
    numbers = np.array([float(value) for value in column.values])
    different, merged = np.unique(numbers, return_inverse=True)
    present = column.codes >= 0
    codes = np.where(present, merged[column.codes], -1)
    if len(different) <= MANY:
        return Attribute(codes, tuple(_text(number) for number in different))
    given = np.sort(different[codes[present]])
    # Where many numbers are equal, several bins would start with the same one.
    edges = np.unique(given[np.arange(1, BINS) * len(given) // BINS])
    edges = edges[edges > different[0]]
    bounds = [-math.inf, *edges.tolist(), math.inf]
    ranges = tuple(f"[{_text(low)}, {_text(high)})" for low, high in itertools.pairwise(bounds))
    bins = np.searchsorted(edges, different, side="right")
    return Attribute(np.where(present, bins[codes], -1), ranges)


def _text(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(float(number))
