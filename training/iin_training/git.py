"""Which commit a file of code comes from."""

import subprocess
from pathlib import Path

__all__ = ["git_commit"]


def git_commit(file: Path) -> str:
    """The commit checked out in the repository that tracks `file`, an existing file.

    Returns:
        40 hex digits, followed by `+changes` where tracked files differ from that commit; `unknown` where git or
        the repository is missing, or does not track the file, as with a package installed somewhere inside it.

    """
    file = file.resolve()
    if _git(file, "ls-files", "--error-unmatch", file.name) is None:
        return "unknown"
    # No tag but the commit, in full.
    return _git(file, "describe", "--exclude=*", "--always", "--abbrev=40", "--dirty=+changes") or "unknown"


def _git(file: Path, *words: str) -> str | None:
    """What git says beside `file`, None where it fails."""
    try:
        result = subprocess.run(["git", *words], cwd=file.parent, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None
