"""Remembers which picture files were checked, so that unchanged ones are not read again."""

import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from iin_training.data.fetch import cache_directory

__all__ = ["CheckedFiles", "stamp_of"]

MOST = 1_000_000  # files that are remembered: those checked last
SETTLED = 2.0  # seconds; a file that changed more recently could change again and keep its stamp
# Rename the table whenever the check becomes stricter, so that earlier results no longer count.
TABLE = "CREATE TABLE IF NOT EXISTS whole (path BLOB UNIQUE, stamp TEXT, sha256 BLOB)"


def stamp_of(path: Path) -> str | None:
    """Size and times of a file, which change whenever it does; None where it is missing or changed just now."""
    try:
        found = path.stat()
    except OSError:
        return None
    if time.time() - found.st_ctime < SETTLED:
        return None
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


class CheckedFiles:
    """Digests of whole files by path and stamp, in a database in the cache; without a database none is known."""

    def __init__(self) -> None:
        """Open the database, or make it."""
        self._database: sqlite3.Connection | None = None
        try:
            cache_directory().mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(cache_directory() / "pictures.sqlite")
            self._database.execute(TABLE)
        except (OSError, RuntimeError, sqlite3.Error):  # RuntimeError: a user without a home
            self.close()

    def close(self) -> None:
        """Close the database; from here on nothing is known or kept."""
        if self._database is not None:
            self._database.close()
        self._database = None

    def known(self, paths: Sequence[Path], stamps: Sequence[str | None]) -> list[bytes | None]:
        """Digest of each file that is still as it was when it was kept, `(N,)`; None for the others."""
        if self._database is None:
            return [None] * len(paths)
        query = "SELECT sha256 FROM whole WHERE path = ? AND stamp = ?"
        try:
            found = [self._database.execute(query, (_key(p), s)).fetchone() for p, s in zip(paths, stamps, strict=True)]
        except sqlite3.Error:
            self.close()
            return [None] * len(paths)
        return [None if row is None else row[0] for row in found]

    def keep(self, files: Iterable[tuple[Path, str, bytes]]) -> None:
        """Remember files by path, stamp (taken before the file was read) and digest."""
        rows = [(_key(path), stamp, sha256) for path, stamp, sha256 in files]
        if self._database is None or not rows:
            return
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO whole VALUES (?, ?, ?)", rows)
                self._database.execute("DELETE FROM whole WHERE rowid <= (SELECT max(rowid) FROM whole) - ?", (MOST,))
        except sqlite3.Error:  # a full disk, or another process that holds it: the next start checks again
            self.close()


def _key(path: Path) -> bytes:
    return os.fsencode(os.path.abspath(path))
