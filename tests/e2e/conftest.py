"""A live service: the real command, Ray Serve, HAProxy and a gRPC port."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from iin_api.v1.interpretation_pb2_grpc import InterpretationServiceStub
from iin_client import Client

BIN = Path(sys.executable).parent


@dataclass
class Service:
    """A running `iin-serve`."""

    address: str
    process: subprocess.Popen[str]
    log: Path


@contextmanager
def serving(bundle: Path, log: Path, *options: str) -> Iterator[Service]:
    """Serve `bundle` on a free port until the block ends, then stop it as Ctrl-C does."""
    port = () if "--port" in options else ("--port", "0")
    command = [str(BIN / "iin-serve"), str(bundle), *port, *options]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True, env=os.environ.copy()
        )
    try:
        for line in process.stdout:
            if line.startswith("ready: "):
                yield Service(line.split()[1], process, log)
                break
        else:
            raise AssertionError(f"iin-serve ended with {process.wait()}: {log.read_text()}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=120)
        finally:
            process.kill()  # its guard stops the rest


@pytest.fixture(scope="session", params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def service(request, digits_bundle, tmp_path_factory):
    options = ("--gpus", "1") if request.param == "gpu" else ()
    with serving(digits_bundle, tmp_path_factory.mktemp("service") / "log", *options) as running:
        yield running


CLUSTER = """
import ray, sys
context = ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=80 << 20)
print("cluster:", context.address_info["gcs_address"], ray.nodes()[0]["MetricsExportPort"], flush=True)
print(context.address_info["session_dir"], flush=True)
sys.stdin.read()
"""


@dataclass
class RayCluster:
    """A Ray that somebody else has started, for `iin-serve --address`."""

    address: str
    metrics_port: int
    pid: int
    session: Path

    def replica_logs(self) -> str:
        """What the replicas have logged."""
        return "".join(file.read_text() for file in (self.session / "logs" / "serve").glob("replica_*.log"))

    @property
    def options(self) -> tuple[str, ...]:
        """What `iin-serve` needs to join it."""
        return ("--address", self.address, "--host", "127.0.0.1", "--proxy", "python")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ
        | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_SLOW_STARTUP_WARNING_S": "2"}
        | {"RAY_metrics_report_interval_ms": "5000"},  # 10 s otherwise
    )
    try:
        _, address, port = next(line.split() for line in process.stdout if line.startswith("cluster: "))
        yield RayCluster(address, int(port), process.pid, Path(process.stdout.readline().strip()))
    finally:
        process.communicate("", timeout=60)


@pytest.fixture
def client(service):
    with Client(service.address, timeout=60) as client:
        yield client


@pytest.fixture
def stub(service):
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(service.address, options) as channel:
        yield InterpretationServiceStub(channel)


@pytest.fixture(scope="session")
def pictures(digits_bundle):
    """Held-out pictures of the model's size, as PNG files."""
    return sorted((digits_bundle / "samples").glob("*.png"))
