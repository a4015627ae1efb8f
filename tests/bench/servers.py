"""The servers under test as processes: started, looked at, and stopped with everything that they started."""

import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

__all__ = ["BARE", "OURS", "Server"]

READY_SECONDS, STOP_SECONDS = 120.0, 30.0
OURS, BARE = "iin-serve", "bare"
REPLICA = "ray::ServeReplica"


class Server:
    """One running server; use as a context manager."""

    def __init__(self, name: str, bundle: Path) -> None:
        """Start it and wait until it is ready; `name` is OURS or BARE.

        Raises:
            RuntimeError: where it does not get ready; the message holds what it printed.

        """
        self.name = name
        if name == OURS:
            command = [str(Path(sysconfig.get_path("scripts")) / "iin-serve"), str(bundle), "--port", "0"]
        else:
            command = [sys.executable, "-m", "tests.bench.bare_server", str(bundle)]
        self._log = tempfile.NamedTemporaryFile(prefix=f"bench-{name}-")  # noqa: SIM115 closed in stop
        # A session of its own: Ctrl-C reaches the harness alone, which then stops the servers in order.
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True)
        self._known: list[psutil.Process] = []
        try:
            self.address = self._wait_until_ready()
            self._known = self._tree()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_until_ready(self) -> str:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            for line in self._printed().splitlines():
                if line.startswith("ready: "):
                    return line.removeprefix("ready: ").strip()
            time.sleep(0.1)
        raise RuntimeError(f"{self.name}: expected 'ready: HOST:PORT' within {READY_SECONDS:g} s:\n{self._printed()}")

    def _printed(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    def _tree(self) -> list[psutil.Process]:
        """The process and all that descend from it."""
        try:
            top = psutil.Process(self._process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def serving(self) -> psutil.Process:
        """The process that runs the graphs: the replica, or the bare server itself."""
        if self.name == BARE:
            return psutil.Process(self._process.pid)
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                if any(word.startswith(REPLICA) for word in process.cmdline()):
                    return process
        raise RuntimeError(f"{self.name}: expected a process named {REPLICA}, found none")

    def cpu_seconds(self) -> list[float]:
        """CPU time so far of each of its processes, seconds."""
        found = []
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                found.append(times.user + times.system)
        return found

    def memory(self) -> dict[str, float]:
        """Bytes: rss and pss (shared pages divided by their users) of the serving process, pss of all processes."""
        own, total = self.serving().memory_full_info(), 0
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                info = process.memory_full_info()
                total += getattr(info, "pss", info.rss)
        return {"rss": own.rss, "pss": getattr(own, "pss", own.rss), "all_pss": total}

    def stop(self) -> None:
        """Ask it to stop; kill what is left of it and of its descendants."""
        tree = list({*self._known, *self._tree()})  # those that outlived their parent are not in its tree
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        _, alive = psutil.wait_procs(tree, timeout=5)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._log.close()
