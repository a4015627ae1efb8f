"""How `iin-serve` starts a Ray of its own, and what it makes of Ray's errors; without Ray."""

import os
import signal
import sys
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
    ("words", "told"),
    [
        (("b", "--replicas", "33"), "--replicas: expected 1 to 32 of each bundle, got 33"),
        (("--address", "auto", "--replicas", "0"), "--replicas: expected at least 1 of each bundle, got 0"),
        (("--address", "auto", "--update", "--", "iin", "describe"), "--update: expected no command behind --"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(words, told, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["a", *words])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_cluster_may_have_more_replicas_than_a_machine(capsys):
    assert cli.main(["nothing", "--address", "auto", "--replicas", "100"]) == 1
    assert "expected a bundle directory" in capsys.readouterr().err


# Of those that callers can send HAProxy refuses its configuration, sends their calls elsewhere or takes two for one.
@pytest.mark.parametrize("name", ["zähler", "two\nlines", "it's", 'a"b', "my model", "a#b", "a,b", "-i", "a/b"])
def test_a_name_by_which_no_call_would_arrive_is_refused(name, digits_bundle):
    with pytest.raises(ValueError, match="expected a name of letters A to Z, digits"):
        cli._by_name([digits_bundle], name)


def test_a_host_that_cannot_be_listened_on_is_not_told_as_a_port_in_use(digits_bundle, capsys):
    assert cli.main([str(digits_bundle), "--host", "::1", "--port", "9000"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("iin-serve: ::1:9000: expected an IPv4 address and a port to listen on: ")


@pytest.mark.parametrize(("end", "code"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_a_command_that_a_signal_ended_has_the_code_that_shells_give_it(end, code):
    assert cli._until_done([sys.executable, "-c", end], "127.0.0.1:1", os.environ.copy(), []) == code


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


def test_a_ray_that_does_not_start_is_told(tmp_path, monkeypatch):
    def late(**_):
        raise Exception("The current node timed out during startup.")  # as Ray's own does

    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(RuntimeError, match=r"Ray did not start: .* timed out"):
        app.start_ray(tmp_path, replicas=1, cpus=1, gpus=0)


def test_a_serve_that_does_not_start_is_told(monkeypatch):
    def killed(**_):
        raise ray.exceptions.ActorDiedError()  # where its proxy was not up in time

    monkeypatch.setattr(app.serve, "start", killed)
    with pytest.raises(RuntimeError, match="Serve did not start: The actor died"):
        app.start_serve(host="127.0.0.1", port=1, http_port=2)


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
