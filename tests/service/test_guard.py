"""However a process ends, the guard of its folder ends what belongs there, and nothing else."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

# Prints its folder, then the ids of processes that belong to it, as a private Ray starts them.
OWNER = """
import contextlib, os, signal, subprocess, sys
from iin_service.guard import MARKER, guarded_folder

def start(code, **options):
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True, **options)
    child.stdout.readline()  # it is up
    return child

READY = "; print(flush=True); sys.stdin.read()"
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests in the background may have it ignored
with guarded_folder() as folder:
    marked = os.environ | {MARKER: str(folder)}
    children = [
        start("import sys" + READY, env=marked),
        start("import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + READY, env=marked),
        start(f"import sys; log = open({str(folder / 'log')!r}, 'w')" + READY),
    ]
    own = (folder / "driver.log").open("w")
    print(folder, *(child.pid for child in children), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.readline()
print(folder.exists(), *(child.wait() for child in children), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def owner():
    """A process with a guarded folder, left at Ctrl-C or a line; its children wait on the same pipe and end with it."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        yield process
        process.stdin.close()
        process.kill()


@pytest.fixture
def started(owner):
    """The folder and the processes that belong to it."""
    folder, *pids = owner.stdout.readline().split()
    return folder, [psutil.Process(int(pid)) for pid in pids]


@pytest.fixture
def reader(started):
    """Somebody who looks at a log of the folder, and names it in the command line."""
    folder, _ = started
    path = os.path.join(folder, "log")
    code = "import sys; log = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        yield process
        process.kill()


def assert_cleared(folder, processes):
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []
    assert not os.path.exists(folder)


def guard_of(owner, processes):
    (guard,) = set(psutil.Process(owner.pid).children()) - set(processes)
    return guard


def test_what_a_killed_process_leaves_is_cleared(owner, started, reader):
    folder, processes = started
    guard = guard_of(owner, processes)
    owner.send_signal(signal.SIGKILL)
    assert_cleared(folder, [*processes, guard])
    assert reader.poll() is None


def test_a_block_left_by_ctrl_c_is_cleared_and_its_process_goes_on(owner, started, reader):
    folder, processes = started
    guard = guard_of(owner, processes)
    os.killpg(owner.pid, signal.SIGINT)  # as a terminal does, to all in the foreground
    assert owner.stdout.readline() == "False -15 -9 -15\n"  # the second one ignores SIGTERM
    assert_cleared(folder, [*processes, guard])
    assert owner.poll() is None
    assert reader.poll() is None


def test_nobody_else_holds_the_guards_pipe(owner, started):
    _, processes = started
    guard = guard_of(owner, processes)
    pipe = os.readlink(f"/proc/{guard.pid}/fd/0")
    for process in [*processes, guard]:
        ends = [os.readlink(entry) for entry in os.scandir(f"/proc/{process.pid}/fd")]
        assert ends.count(pipe) == (process == guard)
