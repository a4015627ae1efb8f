"""The channel's limits, names and certificates; what it does with calls is in test_client.py."""

import json
import math
from pathlib import Path

import grpc
import pytest
from iin_api.v1 import interpretation_pb2 as pb
from iin_client import Client, Tls
from iin_client.channel import CHANNEL_OPTIONS, channel_options, open_channel
from iin_client.streaming import AHEAD
from iin_service.items import Limits
from iin_service.responses import MAX_MESSAGE_BYTES


@pytest.mark.parametrize("address", ["iin:9000", "dns:///iin:9000", "ipv4:10.0.0.1:9000", "ipv6:[::1]:9000", "a,b"])
def test_one_address_is_the_host_that_is_called(address):
    assert "grpc.default_authority" not in dict(channel_options(address, None))


@pytest.mark.parametrize(
    ("address", "host"),
    [("ipv4:10.0.0.1:9000,10.0.0.2:9000", "10.0.0.1:9000"), ("ipv6:[::1]:9000,[::2]:9000", "[::1]:9000")],
)
def test_of_a_list_of_addresses_the_first_is_the_host_that_is_called(address, host):
    assert dict(channel_options(address, None))["grpc.default_authority"] == host


@pytest.mark.parametrize(
    ("address", "is_here"),
    [("[::1]:9000", True), ("dns:///localhost:9000", True), ("localhost", True), ("iin:9000", False)],
)
def test_however_this_machine_is_named_it_is_not_behind_the_proxy(address, is_here):
    assert ("grpc.enable_http_proxy" in dict(channel_options(address, Tls()))) == is_here


def test_every_method_is_tried_again_after_the_pauses_that_the_docs_tell():
    (method,) = json.loads(dict(CHANNEL_OPTIONS)["grpc.service_config"])["methodConfig"]
    (service,) = pb.DESCRIPTOR.services_by_name.values()
    policy = method["retryPolicy"]
    assert method["name"] == [{"service": service.full_name}, {"service": "ray.serve.RayServeAPIService"}]
    assert (policy["maxAttempts"], policy["initialBackoff"], policy["backoffMultiplier"]) == (4, "0.1s", 2)


def test_messages_may_be_as_long_as_the_services():
    options = dict(CHANNEL_OPTIONS)
    for way in ("send", "receive"):
        assert options[f"grpc.max_{way}_message_length"] == MAX_MESSAGE_BYTES


def test_a_stream_is_no_further_ahead_than_the_service_works():
    assert Limits().stream_window == AHEAD


@pytest.mark.parametrize(
    ("given", "missing"),
    [("client_key", "client_certificate"), ("client_certificate", "client_key")],
)
def test_mutual_tls_needs_key_and_certificate(given, missing):
    with pytest.raises(ValueError, match=f"tls: expected .*{missing}.*, got {given} only; give the other too"):
        Tls(**{given: Path("a.pem")})


@pytest.mark.parametrize("kind", [str, Path])
def test_a_key_and_certificate_that_are_none_are_named_with_the_field(kind, tmp_path):
    junk = tmp_path / "junk.pem"
    junk.write_bytes(b"\xffjunk")
    with pytest.raises(ValueError, match=r"^tls\.client_key: expected a PEM file, .* got .*junk\.pem without"):
        open_channel(grpc, "localhost:1", Tls(client_key=kind(junk), client_certificate=kind(junk)))


@pytest.mark.parametrize("timeout", [0.0, -1.0, math.nan, math.inf, 1e10])
def test_a_deadline_that_gRPC_takes_for_one_in_the_past_is_refused(timeout):
    with pytest.raises(ValueError, match=r"timeout: expected seconds above 0"):
        Client("localhost:1", timeout=timeout)
