"""Other inference servers to compare with, each installed in a virtual environment of its own in build/bench."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["MLSERVER", "PEERS", "ROOT", "TRITON", "peer_command"]

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "bench"
TRITON, MLSERVER = "triton", "mlserver"
PEERS = (TRITON, MLSERVER)


def peer_command(name: str, encoder: Path, transform: Path) -> list[str]:
    """The command that serves two graphs with the peer, which is installed first where that is still to do.

    Raises:
        RuntimeError: where it cannot be installed; one line.

    """
    python = _installed(name)
    return [str(python), "-m", f"tests.bench.{name}_server", str(encoder.resolve()), str(transform.resolve())]


def _installed(name: str) -> Path:
    """Python of the peer's virtual environment; what `NAME.txt` pins is installed there once."""
    folder, pins = BUILD / name, Path(__file__).parent / f"{name}.txt"
    python, done = folder / "bin" / "python", folder / ".installed"
    if done.is_file() and done.read_text() == pins.read_text():
        return python
    base = _base_python(name)
    print(f"installing {name} with {base} in {os.path.relpath(folder)} (about a minute, once) ...", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([base, "-m", "venv", str(folder)])
    _run([str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "-r", str(pins)])
    done.write_text(pins.read_text())  # last, so that half an environment does not count
    return python


def _base_python(name: str) -> str:
    """The Python to make the environment with.

    Triton starts a process that is linked with libpython3.11 and loads the environment's modules there. The system's
    loader finds that of the system's own Python (Debian 12: packages python3.11-venv and libpython3.11), and the
    standard library of another patch release does not fit it.
    """
    system = shutil.which("python3.11", path=os.defpath) if name == TRITON else None
    return system or sys.executable


def _run(command: list[str]) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    if finished.returncode:
        said = (finished.stdout + finished.stderr).strip().splitlines()
        errors = [line for line in said if line.startswith("ERROR")] or said[-1:] or ["no word of why"]
        raise RuntimeError(f"{' '.join(command[1:3])} ended with {finished.returncode}: {errors[0].strip()}")
