"""Several models side by side, a new version under load, and shares of the calls for each."""

import json
import shutil
import subprocess
import threading
import time
from collections import Counter

import numpy as np
import psutil
import pytest
from iin_bundle.writing import file_entry
from iin_client import CallError, Client

from .conftest import BIN, serving


def renamed(bundle, folder, **changes):
    """A copy of a bundle under another name or version."""
    shutil.copytree(bundle, folder)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))
    return folder


def wrong_in_its_golden_run(bundle, folder):
    """A copy that passes every check but the one on a replica: a graph gives other values than were recorded."""
    folder = renamed(bundle, folder, version="3")
    with np.load(folder / "golden.npz") as file:
        golden = dict(file)
    golden["decoder/" + next(key for key in golden if key.startswith("decoder/")).split("/")[1]] += 1
    np.savez(folder / "golden.npz", **golden)
    entry = file_entry(folder, "golden.npz")
    manifest = folder / "manifest.json"
    changed = json.loads(manifest.read_text())
    changed["golden"] = {"path": entry.path, "sha256": entry.sha256, "bytes": entry.bytes}
    manifest.write_text(json.dumps(changed))
    return folder


@pytest.fixture(scope="module")
def two(digits_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    other = renamed(digits_bundle, folder / "other", name="other", version="7")
    with serving(digits_bundle, folder / "log", str(other)) as running:
        yield running


def test_a_caller_that_knows_no_name_finds_all_models(two):
    with Client(two.address, timeout=60) as client:
        deadline = time.monotonic() + 60
        while None in [one.model for one in client.list_models()] and time.monotonic() < deadline:
            time.sleep(1)  # on busy cores the first question to another model may take longer than DESCRIBE_SECONDS
        found = client.list_models()
        assert [(one.application, one.state, one.model.version) for one in found] == [
            ("digits", "RUNNING", "1"),
            ("other", "RUNNING", "7"),
        ]
        with pytest.raises(CallError, match="NOT_FOUND"):
            client.get_model()
    told = subprocess.run(
        [BIN / "iin", "models", "--address", two.address], capture_output=True, text=True, check=True
    ).stdout
    assert "digits 1" in told
    assert "other 7" in told


def test_calls_are_shared_out_between_models(two):
    shares = {"digits": 0.75, "other": 0.25}
    with Client(two.address, timeout=60, application=shares) as client:
        seen = Counter(client.get_model().version for _ in range(400))
    assert abs(seen["7"] / 400 - 0.25) < 0.1  # five standard deviations


def test_bundles_of_one_name_are_refused_before_anything_starts(digits_bundle, tmp_path):
    again = renamed(digits_bundle, tmp_path / "again", version="2")
    result = subprocess.run(
        [BIN / "iin-serve", digits_bundle, again], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 1
    assert "is called digits too" in result.stderr


def replicas_of(pid):
    return {
        child.pid
        for child in psutil.Process(pid).children(recursive=True)
        if any(word.startswith("ray::ServeReplica") for word in child.cmdline())
    }


def test_a_new_version_comes_in_place_while_calls_flow_and_a_bad_one_does_not(
    cluster, digits_bundle, pictures, tmp_path
):
    newer = renamed(digits_bundle, tmp_path / "newer", version="2")
    stop, versions, faults = threading.Event(), Counter(), []

    def call(service):
        with Client(service, timeout=60) as client:
            while not stop.is_set():
                try:
                    client.interpret(pictures[0])
                    versions[client.get_model().version] += 1
                except CallError as error:
                    faults.append(str(error))

    def update(bundle):
        words = [BIN / "iin-serve", bundle, "--update", *cluster.options, *port]
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=200)

    with serving(digits_bundle, tmp_path / "log", *cluster.options) as running:
        port = ("--port", running.address.rsplit(":", 1)[1])
        before = replicas_of(cluster.pid)
        assert len(before) == 1
        callers = [threading.Thread(target=call, args=(running.address,)) for _ in range(4)]
        for caller in callers:
            caller.start()
        try:
            result = update(newer)
            assert result.returncode == 0, result.stderr
            assert "updated: digits" in result.stdout
            with Client(running.address, timeout=60) as client:
                assert client.get_model().version == "2"
                refused = update(wrong_in_its_golden_run(digits_bundle, tmp_path / "wrong"))
                assert refused.returncode == 1
                assert "was refused, and the bundle before it is still served" in refused.stderr
                assert "bundle refused, the one before is still served: " in cluster.replica_logs()
                assert client.get_model().version == "2"
            absent = update(renamed(digits_bundle, tmp_path / "absent", name="absent"))
            assert "--update: expected an application absent" in absent.stderr
        finally:
            stop.set()
            for caller in callers:
                caller.join()
        assert replicas_of(cluster.pid) == before
    assert faults == []
    assert versions["1"] > 0
    assert versions["2"] > 0
