"""The channel retries, balances and trusts as promised."""

import json
import math
from pathlib import Path

import pytest
from iin_api.v1 import interpretation_pb2 as pb
from iin_client import Client, Tls
from iin_client.channel import CHANNEL_OPTIONS, SERVICE_CONFIG, open_channel, plain_options


def test_every_method_is_retried_on_unavailable_only():
    (method,) = json.loads(SERVICE_CONFIG)["methodConfig"]
    (service,) = pb.DESCRIPTOR.services_by_name.values()
    assert method["name"] == [{"service": service.full_name}]
    assert method["retryPolicy"] == {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }


def test_calls_spread_over_all_addresses_of_a_name():
    assert json.loads(SERVICE_CONFIG)["loadBalancingConfig"] == [{"round_robin": {}}]


@pytest.mark.parametrize("address", ["iin:9000", "dns:///iin:9000", "ipv4:10.0.0.1:9000", "ipv6:[::1]:9000", "a,b"])
def test_one_address_is_the_host_that_is_called(address):
    assert "grpc.default_authority" not in dict(plain_options(address))


@pytest.mark.parametrize(
    ("address", "host"),
    [("ipv4:10.0.0.1:9000,10.0.0.2:9000", "10.0.0.1:9000"), ("ipv6:[::1]:9000,[::2]:9000", "[::1]:9000")],
)
def test_of_a_list_of_addresses_the_first_is_the_host_that_is_called(address, host):
    assert dict(plain_options(address))["grpc.default_authority"] == host


def test_messages_of_64_mib_fit_both_ways():
    options = dict(CHANNEL_OPTIONS)
    assert options["grpc.max_send_message_length"] == 64 * 1024 * 1024
    assert options["grpc.max_receive_message_length"] == 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("given", "missing"),
    [("client_key", "client_certificate"), ("client_certificate", "client_key")],
)
def test_mutual_tls_needs_key_and_certificate(given, missing):
    with pytest.raises(ValueError, match=f"tls: expected .*{missing}.*, got {given} only; give the other too"):
        Tls(**{given: Path("a.pem")})


def test_a_missing_certificate_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^tls.root_certificates: cannot read .*roots\.pem: No such file"):
        open_channel("localhost:1", Tls(root_certificates=tmp_path / "roots.pem"))


@pytest.mark.parametrize("names", [["root_certificates"], ["client_key", "client_certificate"]])
def test_a_file_without_a_certificate_is_named_with_its_field(names, tmp_path):
    (tmp_path / "junk.pem").write_bytes(b"\xffjunk")
    with pytest.raises(ValueError, match=rf"^tls\.{names[0]}: expected a PEM file, .* got .*junk\.pem without"):
        open_channel("localhost:1", Tls(**dict.fromkeys(names, tmp_path / "junk.pem")))


@pytest.mark.parametrize("timeout", [0.0, -1.0, math.nan, math.inf, 1e10])
def test_a_deadline_that_gRPC_takes_for_one_in_the_past_is_refused(timeout):
    with pytest.raises(ValueError, match=r"timeout: expected seconds above 0"):
        Client("localhost:1", timeout=timeout)
