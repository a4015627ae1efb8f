"""Ray's autoscaler makes nodes here as KubeRay's makes pods: it calls `Provider` in the head, that calls `Pods`."""

import json
import threading
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import NODE_KIND_HEAD, NODE_KIND_WORKER, TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

__all__ = ["Pods", "Provider", "autoscaling"]

PORT = 7000
GROUP = "cpu"
# Ray's autoscaler asks for these, and a provider of one's own has no defaults.
UNUSED = ("setup_commands", "head_setup_commands", "worker_setup_commands", "cluster_synced_files")


def autoscaling(host: str, *, least: int, most: int, cpus: int, idle_seconds: float) -> dict[str, Any]:
    """The autoscaler's configuration: one group of workers, made by `Pods` at `host`."""
    resources = {"CPU": cpus, "memory": 6442450944}
    return {
        "cluster_name": "iin",
        "max_workers": most,
        "idle_timeout_minutes": idle_seconds / 60,
        "provider": {
            "type": "external",
            "module": f"{__name__}.{Provider.__name__}",
            "disable_node_updaters": True,
            "pods": f"http://{host}:{PORT}",
        },
        **{key: [] for key in UNUSED},
        "file_mounts": {},
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            GROUP: {"resources": resources, "node_config": {}, "min_workers": least, "max_workers": most},
        },
    }


class Pods:
    """Starts and stops nodes for `Provider`, for the length of a block."""

    def __init__(self, host: str, start: Callable[[str], object], stop: Callable[[str], object]) -> None:
        """`start` and `stop` are given a node's name; they must return at once."""
        self._start, self._stop = start, stop
        self.tags = {"head": {TAG_RAY_NODE_KIND: NODE_KIND_HEAD, TAG_RAY_USER_NODE_TYPE: "head"}}
        """Tags of every node that is wanted, by name."""
        self._made = 0
        self._lock = threading.Lock()
        pods = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = json.dumps(pods.change(**asked)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass  # the autoscaler asks for each node every 2 s: a line for each would bury what the scenario prints

        self._server = ThreadingHTTPServer((host, PORT), Handler)

    def change(self, add: int = 0, tags: dict[str, str] | None = None, remove: str = "") -> dict[str, dict[str, str]]:
        """Add nodes with these tags, or remove one; returns the tags of all."""
        with self._lock:
            for _ in range(add):
                self._made += 1
                name = f"worker-{self._made}"
                self.tags[name] = {**(tags or {}), TAG_RAY_NODE_KIND: NODE_KIND_WORKER}
                self._start(name)
            if self.tags.pop(remove, None) is not None:
                self._stop(remove)
            return dict(self.tags)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class Provider(NodeProvider):  # type: ignore[misc]  # Ray has no types
    """What the autoscaler calls; it runs in the head and asks `Pods`."""

    def _ask(self, **change: Any) -> dict[str, dict[str, str]]:
        request = urllib.request.Request(self.provider_config["pods"], json.dumps(change).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, dict[str, str]] = json.loads(answer.read())
            return found

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        return [name for name, tags in self._ask().items() if tag_filters.items() <= tags.items()]

    def is_running(self, node_id: str) -> bool:
        return node_id in self._ask()

    def is_terminated(self, node_id: str) -> bool:
        return not self.is_running(node_id)

    def node_tags(self, node_id: str) -> dict[str, str]:
        return self._ask().get(node_id, {})

    def create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> None:
        self._ask(add=count, tags=tags)

    def terminate_node(self, node_id: str) -> None:
        self._ask(remove=node_id)
