"""The servers under test as processes: started, looked at, and stopped with everything that they started."""

import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from iin_bundle import Bundle

from tests.bench.peers import MLSERVER, PEERS, ROOT, TRITON, peer_command

__all__ = ["BARE", "MLSERVER", "OURS", "PEERS", "TRITON", "TWO", "Server"]

READY_SECONDS, STOP_SECONDS = 120.0, 30.0
OURS, BARE = "iin-serve", "bare"
TWO = "iin-serve, 2 replicas"
REPLICA = "ray::ServeReplica"


class Server:
    """One running server; use as a context manager."""

    def __init__(self, name: str, bundle: Bundle) -> None:
        """Start it and wait until it is ready; `name` is OURS, TWO, BARE or one of PEERS.

        Raises:
            RuntimeError: where it cannot be installed or does not get ready; the message holds what it printed.

        """
        self.name = name
        environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}  # as ours has it
        if name in (OURS, TWO):
            scripts, replicas = Path(sysconfig.get_path("scripts")), "2" if name == TWO else "1"
            command = [str(scripts / "iin-serve"), str(bundle.directory.resolve()), "--port", "0"]
            command += ["--replicas", replicas]
        elif name == BARE:
            command = [sys.executable, "-m", "tests.bench.bare_server", str(bundle.directory.resolve())]
        else:
            command = peer_command(name, bundle.graph_path("encoder"), bundle.graph_path("transform"))
            environment.pop("PYTHONPATH", None)
        self._log = tempfile.NamedTemporaryFile(prefix=f"bench-{name}-")  # noqa: SIM115 closed in stop
        # A session of its own: Ctrl-C reaches the harness alone, which then stops the servers in order.
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
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
        """A replica, or the process that was started itself."""
        if self.name not in (OURS, TWO):
            return psutil.Process(self._process.pid)
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                if any(word.startswith(REPLICA) for word in process.cmdline()):
                    return process
        raise RuntimeError(f"{self.name}: expected a process named {REPLICA}, found none")

    def pids(self) -> tuple[int, ...]:
        """All its processes."""
        return tuple(process.pid for process in self._tree())

    def memory(self) -> dict[str, float]:
        """Bytes: pss (shared pages divided by their users) of all processes; rss and pss of a replica alone."""
        found = {"all_pss": 0.0}
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                info = process.memory_full_info()
                found["all_pss"] += getattr(info, "pss", info.rss)
        if self.name in (OURS, TWO):
            own = self.serving().memory_full_info()
            found |= {"rss": own.rss, "pss": getattr(own, "pss", own.rss)}
        return found

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
