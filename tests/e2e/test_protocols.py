"""Standard clients against the port: health, reflection, deadlines, cancellation, unknown methods."""

import time

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from iin_api.v1 import interpretation_pb2 as pb
from iin_client import Factors, Resample

SERVICE = "iin_api.v1.InterpretationService"
# Together more work than is done while it is waited for its end.
LONG, SEVERAL = pb.SampleRequest(count=10_000, format=pb.IMAGE_FORMAT_PNG), 16


@pytest.fixture
def channel(service):
    with grpc.insecure_channel(service.address) as channel:
        yield channel


@pytest.mark.parametrize("name", ["", SERVICE])
def test_the_standard_health_check_says_serving(channel, name):
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_health_check_of_another_service_is_not_found(channel):
    with pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="other"), timeout=30)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_the_list_of_what_has_a_health_is_of_what_can_be_checked(channel):
    health = health_pb2_grpc.HealthStub(channel)
    listed = health.List(health_pb2.HealthListRequest(), timeout=30).statuses
    assert {"", SERVICE} < set(listed)
    for name, answer in listed.items():
        assert answer == health.Check(health_pb2.HealthCheckRequest(service=name), timeout=30)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        (SERVICE, health_pb2.HealthCheckResponse.SERVING),
        ("other", health_pb2.HealthCheckResponse.SERVICE_UNKNOWN),
    ],
)
def test_the_health_stream_starts_with_the_status(channel, name, status):
    stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name), timeout=30)
    assert next(stream).status == status
    stream.cancel()


def test_a_reflection_client_can_call_without_our_code(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
    method = DescriptorPool(database).FindServiceByName(SERVICE).FindMethodByName("GetModel")
    assert method.input_type.full_name == "iin_api.v1.GetModelRequest"
    assert "limits" in method.output_type.fields_by_name


def test_an_unknown_method_is_unimplemented(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/Divine")(b"", timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_call_past_its_deadline_ends_and_leaves_the_service_free(stub, client):
    for stream in [stub.Sample(LONG, timeout=0.2) for _ in range(SEVERAL)]:
        with pytest.raises(grpc.RpcError) as caught:
            list(stream)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert_idle(client)


def test_a_cancelled_stream_stops_the_work(stub, client):
    streams = [stub.Sample(LONG, timeout=60) for _ in range(SEVERAL)]
    for stream in streams:
        assert next(stream).first_index == 0
    for stream in streams:
        stream.cancel()
    assert_idle(client)


def assert_idle(client):
    """Nobody else's items share a batch any more, soon after the others gave up."""
    factors, edit = Factors(np.zeros((3, 32), np.float32)), Resample("digit", seed=1)
    until = time.monotonic() + 30
    while True:
        found = client.edit(factors, edit)  # by the graphs that samples go through
        if [stage.batch_size for stage in found.timing.stages] == [3, 3]:
            return
        assert time.monotonic() < until, "abandoned work still runs"
