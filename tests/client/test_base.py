"""What every call carries: the model it is for, and who makes it."""

import math
from collections import Counter

import pytest
from iin_client import Client, Tls
from iin_client.cli import main


def metadata(application=None, tls=None, token=None):
    return Client("localhost:1", application=application, tls=tls, token=token)._metadata()


def test_a_lone_model_needs_no_name():
    assert metadata() == ()
    assert metadata("digits") == (("application", "digits"),)


def test_calls_are_shared_out_by_their_weights():
    client = Client("localhost:1", application={"old": 3.0, "new": 1.0, "none": 0.0})
    seen = Counter(client._metadata()[0][1] for _ in range(4000))
    assert set(seen) == {"old", "new"}
    assert abs(seen["new"] / 4000 - 0.25) < 0.04  # six standard deviations


@pytest.mark.parametrize("shares", [{"old": -1.0, "new": 2.0}, {"old": 0.0}, {"old": math.inf}])
def test_shares_that_lead_nowhere_are_refused(shares):
    with pytest.raises(ValueError, match="application: expected shares of at least 0, not all 0"):
        metadata(shares)


@pytest.mark.parametrize("application", ["été", "two\nlines", {"": 1.0}])
def test_a_name_that_no_header_can_hold_is_refused(application):
    with pytest.raises(ValueError, match=r"application: expected printable ASCII, got '"):
        metadata(application)


@pytest.mark.parametrize("tls", [None, Tls()], ids=["plain", "TLS"])
@pytest.mark.parametrize(
    "address",
    [
        "",
        "http://localhost:9000",
        "https://iin",
        "iin:0",
        "iin:-5",
        "iin:-",
        "iin:65536",
        "[::1]:99999",
        "dns:///iin:99999",
    ],
)
def test_what_is_no_address_of_grpc_is_refused(address, tls):
    with pytest.raises(ValueError, match=r"address: expected host:port, or a gRPC target .*; name a port from 1 to"):
        Client(address, tls=tls)


@pytest.mark.parametrize("address", ["iin", "iin:", "[::1]", "dns:///iin", "dns:iin"])
def test_a_port_may_be_missing_with_tls_alone(address):
    Client(address, tls=Tls()).close()
    with pytest.raises(ValueError, match=r"; name a port from 1 to 65535 \(with TLS it is 443 if left out\)"):
        Client(address)


@pytest.mark.parametrize(
    "address", ["iin:1", "iin:65535", "[::1]:1", "dns://8.8.8.8/iin:1", "ipv4:10.0.0.1:1,10.0.0.2:1", "unix:/a/b"]
)
def test_any_other_target_is_left_to_grpc(address):
    Client(address).close()


def test_a_token_travels_encrypted_only():
    assert metadata("digits", Tls(), "secret")[1] == ("authorization", "Bearer secret")
    with pytest.raises(ValueError, match=r"^token .*: expected tls \(--tls\) beside it"):
        Client("localhost:1", token="secret")


@pytest.mark.parametrize(
    "token", ["", "secret\n", "sec\nret", "sécret", "sec\x00ret"], ids=["empty", "ended", "two lines", "é", "NUL"]
)
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(token):
    with pytest.raises(ValueError, match=r"^token .*: expected one line of printable ASCII, got") as caught:
        Client("localhost:1", tls=Tls(), token=token)
    assert "sec" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "content", "told"),
    [
        ("--token-file", None, "iin: --token-file: cannot read FILE: No such file or directory\n"),
        ("--token-file", b"sec\xffret", "iin: token (--token-file, IIN_TOKEN): expected one line of printable ASCII"),
        ("--token-file", b"sec\nret\n", "iin: token (--token-file, IIN_TOKEN): expected one line of printable ASCII"),
        ("--token-file", b"\n", "iin: token (--token-file, IIN_TOKEN): expected one line of printable ASCII"),
        ("--root-certificates", None, "iin: tls.root_certificates: cannot read FILE: No such file or directory\n"),
        ("--root-certificates", b"secret", "iin: tls.root_certificates: expected a PEM file, with a line -----BEGIN"),
    ],
)
def test_a_file_that_the_connection_cannot_use_is_told_in_a_line(option, content, told, tmp_path, capfd):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    assert main(["describe", "--address", "localhost:1", "--tls", option, str(path)]) == 2
    error = capfd.readouterr().err  # gRPC's own lines would be here too
    assert error.startswith(told.replace("FILE", str(path)))
    assert error.count("\n") == 1
    assert "sec" not in error.replace(str(path), "")


def test_the_command_reads_its_token_from_a_file_or_the_environment(tmp_path, monkeypatch, capsys):
    (tmp_path / "token").write_text("secret\n")
    for words, variable in ((["--token-file", str(tmp_path / "token")], ""), ([], "secret")):
        monkeypatch.setenv("IIN_TOKEN", variable)
        assert main(["describe", *words, "--address", "localhost:1"]) == 2
        told = capsys.readouterr().err
        assert told.startswith("iin: token (--token-file, IIN_TOKEN): expected tls (--tls) beside it")
        assert "secret" not in told
