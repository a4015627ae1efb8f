"""The commands as people run them: iin-serve comes up, says so, and leaves nothing behind; iin calls it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from iin_client import CallError, Client, Latent
from iin_service.cli import main
from iin_service.environment import free_ports
from PIL import Image

from .conftest import BIN, serving


def iin(service, *words, code=0):
    """What `iin` prints."""
    result = subprocess.run(
        [BIN / "iin", *words],
        env=os.environ | {"IIN_ADDRESS": service.address},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == code, result.stderr
    return result.stdout if code == 0 else result.stderr


def iin_serve(*words):
    return subprocess.run([BIN / "iin-serve", *words], capture_output=True, text=True, check=False, timeout=300)


def test_describe_names_factors_and_figures(service):
    told = iin(service, "describe")
    assert all(word in told for word in ("residual", "digit", "colour", "swap_digit"))
    assert json.loads(iin(service, "describe", "--json"))["name"] == "digits"


def test_interpret_prints_a_table_or_json(service, pictures):
    assert pictures[0].name in iin(service, "interpret", pictures[0])
    told = json.loads(iin(service, "interpret", "--json", *pictures[:3]))
    assert [item["image"] for item in told["items"]] == [str(picture) for picture in pictures[:3]]


def test_edit_writes_a_picture(service, pictures, tmp_path):
    out = tmp_path / "out.png"
    told = iin(service, "edit", pictures[0], "--replace", f"digit={pictures[1]}", "--strength", "0.5", "-o", out)
    assert Image.open(out).size == (32, 32)
    assert told == f"{out}: 32 x 32 pixels\n"


def test_sample_writes_a_grid(service, pictures, tmp_path):
    out = tmp_path / "grid.png"
    iin(service, "sample", "-n", "64", "--seed", "7", "--fix", f"colour={pictures[0]}", "-o", out)
    width, height = Image.open(out).size
    assert width >= 8 * 32
    assert height >= 8 * 32


def test_gallery_draws_a_page(service, pictures, tmp_path):
    out = tmp_path / "gallery.png"
    iin(service, "gallery", *pictures[:6], "-o", out)
    assert min(Image.open(out).size) > 500


def test_a_mistake_is_told_in_a_line(service, pictures, tmp_path):
    told = iin(service, "edit", pictures[0], "--shift", "size=1:1,2", "-o", tmp_path / "out.png", code=1)
    assert "one of residual, digit, colour" in told
    assert "Traceback" not in told


def test_a_bad_bundle_fails_before_anything_starts(digits_bundle, tmp_path):
    broken = tmp_path / "bundle"
    shutil.copytree(digits_bundle, broken)
    with (broken / "encoder.onnx").open("r+b") as file:
        file.seek(100)
        file.write(b"altered")
    result = iin_serve(broken)
    assert result.returncode == 1
    assert "encoder.onnx: expected sha256" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--replicas", "0"), "--replicas: expected 1 to "),
        (("--cpus", "0"), "--cpus: expected at least 1, got 0"),
        (("--gpus", "-1"), "--gpus: expected 0 to 1, or a whole number above, got -1"),
        (("--gpus", "1.5"), "--gpus: expected 0 to 1, or a whole number above, got 1.5"),
        (("--gpus", "nan"), "--gpus: expected 0 to 1, or a whole number above, got nan"),
        (("--port", "99999"), "--port: expected 0 to 65535, got 99999; 0 takes a free one"),
        (("--update",), "--update: expected the cluster where the application runs, got none; add --address"),
    ],
)
def test_an_option_that_cannot_be_is_wrong_usage(words, told, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bundle", *words])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_port_in_use_is_told(digits_bundle):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = iin_serve(digits_bundle, "--port", str(port))
    assert result.returncode == 1
    assert f"something listens on {port}" in result.stderr


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_ray_is_imported_is_no_mistake(digits_bundle, tmp_path, monkeypatch, signal_):
    (tmp_path / "ray.py").write_text(f"import os, time\nos.kill(os.getpid(), {signal_:d})\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = iin_serve(digits_bundle, "--port", "0")
    assert result.returncode == 130
    assert "Traceback" not in result.stderr


def test_serving_while_a_command_runs_returns_its_code(digits_bundle):
    ask = "import os, sys; sys.exit(40 + (os.environ['IIN_ADDRESS'].count(':')))"
    result = iin_serve(digits_bundle, "--port", "0", "--", sys.executable, "-c", ask)
    assert result.returncode == 41, result.stderr


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_no_process_and_no_port(digits_bundle, tmp_path, signal_):
    with serving(
        digits_bundle, tmp_path / "log", "--proxy", "python" if signal_ == signal.SIGTERM else "haproxy"
    ) as one:
        started = psutil.Process(one.process.pid).children(recursive=True)
        assert any("ray" in " ".join(child.cmdline()) for child in started)
        with Client(one.address) as client:  # the plain proxy answers as HAProxy does
            assert client.get_model().name == "digits"
            with pytest.raises(CallError, match=r"latent\.shape: expected") as caught:
                client.interpret(Latent(np.zeros(5)))
            assert [one.field for one in caught.value.violations] == ["inputs[0].latent.shape"]
        one.process.send_signal(signal_)
        assert one.process.wait(timeout=120) == 0, one.log.read_text()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []
    host, port = one.address.split(":")
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0


def test_a_killed_service_leaves_nothing_either(digits_bundle, tmp_path):
    with serving(digits_bundle, tmp_path / "log") as one:
        started = psutil.Process(one.process.pid).children(recursive=True)
        titles = " ".join(" ".join(child.cmdline()) for child in started)
        assert all(word in titles for word in ("raylet", "gcs_server", "ray::ServeReplica", "haproxy"))
        (guard,) = (child for child in started if "guard.py" in " ".join(child.cmdline()))
        folder = Path(guard.cmdline()[-1])
        assert (folder / "ray").is_dir()
        one.process.kill()
    _, alive = psutil.wait_procs(started, timeout=120)
    assert alive == []
    assert not folder.exists()


def test_two_applications_on_a_cluster_that_is_joined(cluster, digits_bundle, tmp_path):
    options = (*cluster.options, "--port", str(free_ports(1)[0]))
    with (
        serving(digits_bundle, tmp_path / "log1", *options, "--name", "one") as first,
        serving(digits_bundle, tmp_path / "log2", *options, "--name", "other") as second,
    ):
        for name in ("one", "other"):
            with Client(first.address, application=name) as client:
                assert client.get_model().name == "digits"
        told = r"Application 'third' not found \(NOT_FOUND\); name one of the models served at .* iin models lists them"
        with Client(first.address, application="third") as client, pytest.raises(CallError, match=told):
            client.get_model()
        told = iin(first, "describe", code=1)
        assert told.startswith("iin: no application is named, and the service has several or, while it starts")
        assert "Ray" not in told
        assert second.address == first.address


def test_replicas_that_find_no_room_are_told_of_while_they_wait(cluster, digits_bundle):
    command = [BIN / "iin-serve", digits_bundle, *cluster.options, "--port", str(free_ports(1)[0]), "--cpus", "3"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        told = next(line for line in process.stderr if "waiting: " in line)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert 'Resources required for each replica: {"CPU": 3}' in told
    assert process.returncode == 130


def test_help_teaches(tmp_path):
    for command, words in (("iin-serve", "examples:"), ("iin", "interpret"), ("iin-train", "examples:")):
        result = subprocess.run([BIN / command, "--help"], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert words in result.stdout
