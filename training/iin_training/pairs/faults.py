"""Mistakes in a file of the user's, collected so that all are told at once."""

from pathlib import Path

__all__ = ["Faults"]

TOLD = 10  # mistakes that a message spells out


class Faults:
    """Mistakes in one file, by line."""

    def __init__(self, path: Path) -> None:
        """Of the file `path`."""
        self._path = path
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, what: str) -> None:
        """Note a mistake in a line, counted from 1."""
        self._found.append((line, what))

    def raise_any(self) -> None:
        """Raise a `ValueError` that names the file and lines, where there are mistakes."""
        if not self._found:
            return
        told = [f"{self._path}:{line}: {what}" for line, what in sorted(self._found)[:TOLD]]
        if len(self._found) > TOLD:
            told.append(f"and {len(self._found) - TOLD} more mistakes in this file")
        raise ValueError("\n".join(told))
