"""How `iin-serve` starts a Ray of its own, and what it makes of Ray's errors; without Ray."""

import os
import signal
from types import SimpleNamespace

import pytest
import ray
from iin_service import app, cli, environment
from iin_service.environment import free_ports
from ray.serve.exceptions import RayServeException

OWN = {
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
}


@pytest.fixture
def process():
    """Leaves the process as it was: the command changes its environment and its signal handlers."""
    before, handlers = os.environ.copy(), {number: signal.getsignal(number) for number in cli.STOP_SIGNALS}
    yield
    os.environ.clear()
    os.environ.update(before)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("given", [False, True])
def test_no_port_is_taken_twice(digits_bundle, process, monkeypatch, given):
    ports, used = free_ports(7), []
    monkeypatch.setattr(environment, "PORTS", ports)  # no others: two draws would meet
    monkeypatch.setattr(app, "start_ray", lambda *_, **__: None)

    def start_serve(host, port, http_port):
        used.extend([port, http_port, *(int(os.environ[name]) for name in os.environ if name in OWN)])
        raise RuntimeError("far enough")

    monkeypatch.setattr(app, "start_serve", start_serve)
    assert cli.main([str(digits_bundle), "--port", str(ports[3] if given else 0)]) == 1
    assert len(used) == len(set(used)) == 6
    assert used[0] == ports[3] or not given


@pytest.mark.parametrize(
    ("replicas", "gpus", "whole"),
    [(3, 0.6, 3), (3, 0.5, 2), (4, 0.3, 2), (10, 0.1, 1), (11, 0.1, 2), (3, 1.0, 3), (3, 2.0, 6), (3, 0.0, None)],
)
def test_there_are_gpus_for_all_replicas(tmp_path, monkeypatch, replicas, gpus, whole):
    given = {}
    monkeypatch.setattr(ray, "init", lambda **options: given.update(options))
    app.start_ray(tmp_path, replicas=replicas, cpus=2, gpus=gpus)
    assert given["num_gpus"] == whole
    assert given["num_cpus"] == 2 * replicas


@pytest.mark.parametrize(
    "error", [ray.exceptions.ActorDiedError(), RayServeException("it is gone"), TimeoutError("timed out")]
)
def test_a_replica_that_does_not_say_what_it_serves_is_told_in_a_line(digits_bundle, monkeypatch, error):
    def result(timeout_s):
        raise error

    handle = SimpleNamespace(describe=SimpleNamespace(remote=lambda: SimpleNamespace(result=result)))
    monkeypatch.setattr(app.serve, "get_app_handle", lambda name: handle)
    with pytest.raises(RuntimeError, match="--update: expected digits to say what it serves, got"):
        app._check_served("digits", digits_bundle, replicas=1)
