"""Reading a user's text files: UTF-8, CSV cells, and mistakes collected so that one message lists them all."""

import csv
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TextIO

__all__ = ["Faults", "csv_rows", "opened", "other_separator", "spelling_difference", "whole_rows"]

TOLD = 10  # mistakes that a message spells out
SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "backslashes for /": lambda name: name.replace("\\", "/"),
    "the Unicode form of a letter (NFC or NFD)": lambda name: unicodedata.normalize("NFC", name),
    "capital letters": str.casefold,
    "their endings": lambda name: os.path.splitext(name)[0],
}
"""Ways to spell the name of one file differently, each with a function that makes these spellings equal."""


class Faults:
    """Mistakes in one file, by line."""

    def __init__(self, path: str | Path) -> None:
        """Of the file `path`."""
        self._path = path
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, what: str) -> None:
        """Note a mistake in a line, counted from 1."""
        self._found.append((line, what))

    def stop(self, line: int, what: str) -> NoReturn:
        """Raise with a mistake after which nothing more can be read, and with those noted before."""
        self.add(line, what)
        raise self._error()

    def raise_any(self) -> None:
        """Raise a `ValueError` that names the file and lines, where there are mistakes."""
        if self._found:
            raise self._error()

    def _error(self) -> ValueError:
        told = [f"{self._path}:{line}: {what}" for line, what in sorted(self._found)[:TOLD]]
        if len(self._found) > TOLD:
            told.append(f"and {len(self._found) - TOLD} more mistakes in this file")
        return ValueError("\n".join(told))


@contextmanager
def opened(path: str | Path, what: str) -> Iterator[TextIO]:
    """The file as text, a byte order mark passed over; `ValueError` where it cannot be read as `what`."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise ValueError(f"{path}: expected a readable {what}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected a {what} in UTF-8: {error}; save it as UTF-8, a spreadsheet calls it 'CSV UTF-8'"
        ) from error


def csv_rows(file: Iterable[str], faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of every row of a CSV file, blanks around cells taken away.

    A quote that is never closed makes one cell of all that follows, so no cell may go on over lines: there `faults` are
    raised, since nothing more can be read.
    """
    reader, line = csv.reader(file, skipinitialspace=True), 1
    try:
        for row in reader:
            if any("\n" in cell or "\r" in cell for cell in row):
                raise csv.Error
            yield reader.line_num, [cell.strip() for cell in row]
            line = reader.line_num + 1
    except csv.Error:  # the reader's own where so much follows that no cell may hold it
        faults.stop(line, "expected cells of one line each, got one that goes on; close quotes where a cell ends")


def whole_rows(rows: Iterable[tuple[int, list[str]]], width: int, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """The rows, line and cells, that have `width` cells; others are noted in `faults`, blank ones passed over."""
    for line, cells in rows:
        if len(cells) == width and any(cells):
            yield line, cells
        elif any(cells):
            faults.add(line, f"expected {width} cells, as in the header, got {len(cells)}")


def other_separator(header: str) -> str:
    """The remedy for a header with semicolons or tabs between its names; empty where it has neither."""
    return "; save it with commas between columns" if ";" in header or "\t" in header else ""


def spelling_difference(names: Iterable[str], files: Iterable[str]) -> str:
    """The one of `SPELLINGS` that alone keeps some `names` of images from being in `files`; empty if there is none."""
    names, files = list(names), list(files)
    for what, unified in SPELLINGS.items():
        if {unified(name) for name in names} & {unified(file) for file in files}:
            return what
    return ""
