"""Writing a bundle: files first, the manifest last."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from iin_bundle.manifest import MANIFEST_NAME, FileEntry, Manifest

__all__ = ["file_digest", "file_entry", "write_manifest"]


def file_digest(path: Path) -> str:
    """Lower-case hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_entry(directory: Path, path: str) -> FileEntry:
    """The manifest's entry for a file already written below `directory`."""
    full = directory / path
    return FileEntry(path=path, sha256=file_digest(full), bytes=full.stat().st_size)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Complete a bundle: `manifest.json` appears at once and whole, or not at all."""
    text = json.dumps(asdict(manifest), indent=2, allow_nan=False) + "\n"
    partial = directory / (MANIFEST_NAME + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(directory / MANIFEST_NAME)
