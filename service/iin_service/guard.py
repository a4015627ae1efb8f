"""A folder for a private Ray, and a process that clears up after `iin-serve` however that ended. Linux only."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["MARKER", "guarded_folder"]

MARKER = "IIN_SERVE_FOLDER"
"""Environment variable that marks a process as belonging to the folder that it holds."""

# Signal and how long it is repeated, in seconds; 0 is none: most of Ray ends by itself.
STEPS = ((0, 1.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 10.0))
PAUSE_SECONDS = 0.1


@contextlib.contextmanager
def guarded_folder() -> Iterator[Path]:
    """A new folder for the length of the block, watched by a process of its own.

    When the block ends, or this process does in whatever way (SIGKILL, out of memory), the guard ends the processes
    that belong to the folder, first by SIGTERM, then by SIGKILL, and removes it. A process belongs to it that was
    started with `MARKER` set to the folder's path or has a file in it open for writing. Where there is no /proc,
    as on macOS, none is found and only the folder is removed.

    Yields:
        The folder's path, free of symbolic links.

    """
    folder = Path(tempfile.mkdtemp(prefix="iin-")).resolve()
    guard = subprocess.Popen(
        [sys.executable, "-I", __file__, str(folder)],
        stdin=subprocess.PIPE,  # no other process inherits our end, so it closes when this process ends
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C and a closing terminal do not reach it
    )
    try:
        yield folder
    finally:
        guard.communicate()


def main() -> None:
    """Wait until nobody holds the other end of standard input, then clear up after the folder named as argument."""
    sys.stdin.buffer.read()
    folder = sys.argv[1]
    for number, seconds in STEPS:
        until = time.monotonic() + seconds
        while (left := _belonging(folder)) and time.monotonic() < until:
            for pid in left:
                with contextlib.suppress(OSError):  # it has just ended
                    os.kill(pid, number)
            time.sleep(PAUSE_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


def _belonging(folder: str) -> list[int]:
    """Process ids of what belongs to `folder`, iin-serve itself left out."""
    spared = {os.getpid(), os.getppid()}
    found = (int(process.name) for process in Path("/proc").glob("[0-9]*") if _belongs(process, folder))
    return [pid for pid in found if pid not in spared]


def _belongs(process: Path, folder: str) -> bool:
    try:
        # Ray's agents write their titles over their environment; what they all keep is an open log.
        marked = f"{MARKER}={folder}".encode() in (process / "environ").read_bytes().split(b"\0")
        return marked or any(_writes(descriptor, folder) for descriptor in (process / "fd").iterdir())
    except OSError:  # it has just ended, or is another user's
        return False


def _writes(descriptor: Path, folder: str) -> bool:
    """True for an entry of /proc/PID/fd that is a file in `folder` open for writing; a reader may be anybody."""
    try:
        return bool(descriptor.lstat().st_mode & stat.S_IWUSR) and os.readlink(descriptor).startswith(folder + "/")
    except OSError:
        return False


if __name__ == "__main__":
    main()
