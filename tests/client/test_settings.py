"""What every call carries: the model it is for, and who makes it."""

from collections import Counter

import pytest
from iin_client import Client, Tls
from iin_client.cli import main
from iin_client.settings import Settings


def metadata(application=None, tls=None, token=None):
    return Settings("localhost:1", 1.0, application, tls, token).metadata()


def test_a_lone_model_needs_no_name():
    assert metadata() == ()
    assert metadata("digits") == (("application", "digits"),)


def test_calls_are_shared_out_by_their_weights():
    settings = Settings("localhost:1", 1.0, {"old": 3.0, "new": 1.0, "none": 0.0}, None, None)
    seen = Counter(settings.metadata()[0][1] for _ in range(4000))
    assert set(seen) == {"old", "new"}
    assert abs(seen["new"] / 4000 - 0.25) < 0.04  # six standard deviations


@pytest.mark.parametrize("shares", [{"old": -1.0, "new": 2.0}, {"old": 0.0}])
def test_shares_that_lead_nowhere_are_refused(shares):
    with pytest.raises(ValueError, match="application: expected shares of at least 0, not all 0"):
        metadata(shares)


def test_a_token_travels_encrypted_only():
    assert metadata("digits", Tls(), "secret")[1] == ("authorization", "Bearer secret")
    with pytest.raises(ValueError, match="token: expected tls beside it"):
        Client("localhost:1", token="secret")


def test_the_command_reads_its_token_from_a_file_or_the_environment(tmp_path, monkeypatch, capsys):
    (tmp_path / "token").write_text("secret\n")
    assert main(["describe", "--token-file", str(tmp_path / "token"), "--address", "localhost:1"]) == 2
    assert "--token-file: expected --tls beside a token" in capsys.readouterr().err
    monkeypatch.setenv("IIN_TOKEN", "secret")
    assert main(["describe", "--address", "localhost:1"]) == 2
    told = capsys.readouterr().err
    assert "the variable IIN_TOKEN: expected --tls beside a token" in told
    assert "secret" not in told
