"""A cluster as deploy/ describes it, of nodes on this machine."""

import json
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.cluster.nodes import HEAD, Node, name_service, worker_address

__all__ = ["APPLICATION", "Cluster", "serve_config", "wait_until"]

ROOT = Path(__file__).parents[2]
SERVE = ROOT / "deploy" / "serve" / "serve.yaml"
SETTINGS = ROOT / "deploy" / "base" / "serve.env"
APPLICATION = "iin"
PORTS = {"serve": 9000, "dashboard": 8265, "metrics": 8080, "gcs": 6379}
SERVICE = "iin-serve-svc"
OBJECT_STORE_BYTES = 104857600
READY_SECONDS = 120.0
PROBES = ("http://{}:52365/api/local_raylet_healthz", "http://{}:8000/-/healthz")
PROBE_SECONDS = 5.0

Config = dict[str, Any]


def serve_config(bundle: Path, **autoscaling: float) -> Config:
    """deploy/serve/serve.yaml with this bundle, two replicas at least, and other values of its autoscaling."""
    config: Config = yaml.safe_load(SERVE.read_text())
    deployment = config["applications"][0]["deployments"][0]
    deployment["user_config"]["bundle"] = str(bundle.resolve())
    deployment["autoscaling_config"] |= {"min_replicas": 2} | autoscaling  # one on each of two workers
    return config


def wait_until(what: str, holds: Callable[[], object], seconds: float = READY_SECONDS) -> float:
    """Wait until something holds; returns the seconds that it took.

    Raises:
        TimeoutError: where it does not in time; the message says `what`.

    """
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > seconds:
            raise TimeoutError(f"expected within {seconds:g} s: {what}")
        time.sleep(0.5)
    return time.monotonic() - begin


def _succeeds(probe: str, address: str) -> bool:
    try:
        with urllib.request.urlopen(probe.format(address), timeout=10) as answer:
            return b"success" in answer.read()
    except OSError:
        return False


class Cluster:
    """A head that only steers, and workers; the Ray settings are those of deploy/base, its token too."""

    def __init__(self, *, head_options: tuple[str, ...] = (), head_settings: Mapping[str, str] | None = None) -> None:
        self._head_options = head_options
        self._head_settings = {"RAY_CLOUD_INSTANCE_ID": "head", "RAY_NODE_TYPE_NAME": "head", **(head_settings or {})}
        self._folder = tempfile.TemporaryDirectory(prefix="iin-cluster-")
        self.folder = Path(self._folder.name)
        self._token = secrets.token_hex(16)
        given = (line.split("=", 1) for line in SETTINGS.read_text().splitlines() if "=" in line and line[0] != "#")
        paths = [str(ROOT), str(ROOT / "protos"), str(ROOT / "service"), os.environ.get("PYTHONPATH", "")]
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")},
            **dict(given),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            "PYTHONPATH": ":".join(filter(None, paths)),
        }
        self.workers: dict[str, Node] = {}
        """By address."""
        self._ended: list[Node] = []
        self._ready: set[str] = set()
        self._stop = threading.Event()
        self._prober = threading.Thread(target=self._probe)
        self._made = 0
        self.address = f"dns:///{SERVICE}:{PORTS['serve']}"

    def __enter__(self) -> Self:
        self.start_head()
        self._prober.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._prober.join()
        nodes = [*self.workers.values(), *self._ended, self.head]
        if error is not None and (keep := os.environ.get("IIN_CLUSTER_LOGS")):
            for node in nodes:
                for logs in Path(f"/proc/{node.pid}/root/tmp/ray").glob("session_2*/logs"):
                    shutil.copytree(logs, Path(keep, node.address), symlinks=True, dirs_exist_ok=True)
        if error is not None:
            for node in nodes:
                if not node.runs:
                    print(f"  {node.address} had ended:\n{node.tail()}")
        for node in nodes:
            node.stop()
        self._folder.cleanup()

    def start_head(self) -> None:
        """Start the head, or another in place of one that ended."""
        words = ["--head", f"--port={PORTS['gcs']}", "--num-cpus=0", "--dashboard-host=0.0.0.0", *self._head_options]
        self.head = self._start(HEAD, words, self._head_settings)

    def add_worker(self, cpus: int, **settings: str) -> Node:
        """Start a worker; it joins by itself, if there is a head."""
        address = worker_address(self._made)
        self._made += 1
        words = [f"--address={HEAD}:{PORTS['gcs']}", f"--num-cpus={cpus}"]
        self.workers[address] = self._start(address, words, settings)
        return self.workers[address]

    def end_worker(self, worker: Node, number: signal.Signals) -> None:
        """Signal a worker and take it out of the service, as Kubernetes does; callers that know it may go on."""
        del self.workers[worker.address]
        self._ended.append(worker)
        self._publish()
        worker.signal(number)

    def _probe(self) -> None:
        """Ask every worker what KubeRay's readiness probe asks, and as often."""
        while not self._stop.wait(PROBE_SECONDS):
            self._ready = {
                address for address in list(self.workers) if all(_succeeds(probe, address) for probe in PROBES)
            }
            self._publish()

    def _publish(self) -> None:
        """Let the service's name stand for the workers that are ready and not ending."""
        name_service(SERVICE, sorted(self._ready & set(self.workers)))

    def _start(self, address: str, words: list[str], settings: dict[str, str]) -> Node:
        command = ["ray", "start", "--block", f"--node-ip-address={address}", *words]
        command += [f"--object-store-memory={OBJECT_STORE_BYTES}", f"--metrics-export-port={PORTS['metrics']}"]
        command += ["--memory=6442450944"]
        return Node(address, command, self._environment | settings, self.folder / f"{address}.log")

    def api(self, path: str, body: Config | None = None) -> Config:
        """The head's dashboard API; with a body it is put.

        Raises:
            OSError: where the head does not answer, or refuses.

        """
        request = urllib.request.Request(
            f"http://{HEAD}:{PORTS['dashboard']}{path}",
            data=None if body is None else json.dumps(body).encode(),
            method="GET" if body is None else "PUT",
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text else {}

    def deploy(self, config: Config) -> None:
        """Put a Serve configuration, as KubeRay's operator does."""
        try:
            self.api("/api/serve/applications/", config)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{error}: {error.read().decode()[-2000:]}") from error

    def answers(self) -> bool:
        """True where the head's API does."""
        try:
            return bool(self.api("/api/serve/applications/"))
        except OSError:
            return False

    def application(self) -> Config:
        found: Config = self.api("/api/serve/applications/")["applications"].get(APPLICATION, {})
        return found

    def replicas(self) -> dict[str, str]:
        """Workers' addresses of the running replicas, by their names."""
        deployments = self.application().get("deployments", {})
        found = [replica for one in deployments.values() for replica in one["replicas"]]
        return {one["replica_id"]: one["node_ip"] for one in found if one["state"] == "RUNNING"}

    def nodes(self) -> int:
        """Workers that Ray counts as alive."""
        states = [one["raylet"].get("state") for one in self.api("/nodes?view=summary")["data"]["summary"]]
        return states.count("ALIVE") - 1

    def running(self) -> bool:
        return bool(self.application().get("status") == "RUNNING")

    def wait_until_serving(self, config: Config, workers: int) -> None:
        """Deploy and wait until the application runs, with a replica and a proxy on every worker."""
        wait_until("the head's API", self.answers)
        wait_until("all workers", lambda: self.nodes() == workers)
        self.deploy(config)
        wait_until("a running application", self.running)
        wait_until("a replica on each worker", lambda: len(set(self.replicas().values())) == workers)
        wait_until("each worker to be ready", lambda: self._ready >= set(self.workers))

    def metric(self, name: str) -> list[float]:
        """Values of a metric over all workers."""
        found: list[float] = []
        for address in self.workers:
            with urllib.request.urlopen(f"http://{address}:{PORTS['metrics']}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
            found += [float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{")]
        return found
