"""Nodes of a cluster on one machine: each has its own network, processes and temporary files, as a pod has."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

__all__ = ["HEAD", "HERE", "Node", "isolate", "make_network", "name_service", "worker_address"]

HOSTS = Path("/etc/hosts")
BRIDGE, PREFIX = "nodes0", "10.77.0"
HERE = f"{PREFIX}.1"
"""Where the callers are, and whatever else belongs to no node."""
HEAD = f"{PREFIX}.2"
NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
# Ray and HAProxy write to these folders. The end of the input tells that the network is there.
CONTAINER = """
for folder in /tmp/ray /tmp/haproxy-serve /dev/shm; do
    mkdir -p $folder
    mount -t tmpfs tmpfs $folder
done
read -r _ || :
ip link set lo up
exec "$@"
"""


def isolate(command: list[str]) -> None:
    """Go on as `command` in namespaces of its own, so that nothing outlives it and no other Ray sees it."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    os.execvp("unshare", ["unshare", *user, *NAMESPACES, *command])


def make_network() -> None:
    """Lay the network that joins the nodes, and a file of names of its own; only inside `isolate`."""
    with tempfile.NamedTemporaryFile() as names:
        names.write(HOSTS.read_bytes())
        names.flush()
        subprocess.run(["mount", "--bind", names.name, HOSTS], check=True)
    _ip("link set lo up")
    _ip(f"link add {BRIDGE} type bridge")
    _ip(f"addr add {HERE}/24 dev {BRIDGE}")
    _ip(f"link set {BRIDGE} up")


def name_service(name: str, addresses: list[str]) -> None:
    """Let `name` stand for these addresses, as a headless Service does."""
    others = [line for line in HOSTS.read_text().splitlines() if name not in line.split()]
    HOSTS.write_text("\n".join([*others, *(f"{address} {name}" for address in addresses)]) + "\n")


def worker_address(number: int) -> str:
    """Address of a worker, counted from 0."""
    return f"{PREFIX}.{number + 11}"


class Node:
    """A running command in namespaces of its own."""

    def __init__(self, address: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.address, self.log = address, log
        last = address.rsplit(".", 1)[1]
        with log.open("a") as output:
            self._outer = subprocess.Popen(
                ["unshare", *NAMESPACES, "sh", "-euc", CONTAINER, "node", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        while not (children := psutil.Process(self._outer.pid).children()):
            time.sleep(0.01)
        self.pid = children[0].pid
        """Process 1 of the node, as a pod has one; what ends it ends all of the node."""
        outside, inside = f"out{self.pid}", f"in{self.pid}"
        _ip(f"link add {outside} type veth peer name {inside}")
        _ip(f"link set {outside} master {BRIDGE} up")
        _ip(f"link set {inside} netns {self.pid} name eth0 address 02:00:00:00:00:{int(last):02x}")
        inside_network = ["nsenter", "--target", str(self.pid), "--net"]
        for words in (f"addr add {address}/24 dev eth0", "link set eth0 up"):
            subprocess.run([*inside_network, "ip", *words.split()], check=True)
        assert self._outer.stdin is not None
        self._outer.stdin.close()

    @property
    def runs(self) -> bool:
        return self._outer.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to process 1; SIGKILL ends the whole node at once."""
        os.kill(self.pid, number)

    def cut(self) -> None:
        """Take it off the network: it goes on, but no packet of it arrives, not even the end of a connection."""
        _ip(f"link set out{self.pid} down")

    def wait(self, timeout: float) -> None:
        self._outer.wait(timeout)

    def stop(self) -> None:
        """End it at once, whatever its state."""
        if self.runs:
            self.signal(signal.SIGKILL)
        self.wait(10)

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)
