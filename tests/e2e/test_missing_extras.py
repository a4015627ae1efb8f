"""A console script without its extra says in a line which one to install."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SCRIPTS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]


def run(script, *words, without, temporary):
    """The console script as pip makes it, in an installation that has no module named `without`."""
    module, function = SCRIPTS[script].split(":")
    code = f"import sys; sys.modules[{without!r}] = None; from {module} import {function}; sys.exit({function}())"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"TMPDIR": str(temporary)},
    )


def assert_told(result, module, extra):
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert f"{module} is not installed" in line
    assert f"pip install -c constraints.txt '.[{extra}]'" in line
    assert result.stdout == ""


@pytest.mark.parametrize("module", ["torch", "tyro", "onnxruntime"])
def test_training_without_its_extra(module, tmp_path):
    assert_told(run("iin-train", "run", "digits", without=module, temporary=tmp_path), module, "train")


@pytest.mark.parametrize("module", ["grpc", "ray", "onnxruntime"])
def test_serving_without_its_extra(module, digits_bundle, tmp_path):
    assert_told(run("iin-serve", digits_bundle, "--port", "0", without=module, temporary=tmp_path), module, "serve")
    assert not list(tmp_path.glob("iin-*"))


@pytest.mark.parametrize("module", ["grpc", "PIL", "google.protobuf"])
def test_calling_without_its_extra(module, tmp_path):
    assert_told(run("iin", "describe", without=module, temporary=tmp_path), module, "client")


@pytest.mark.parametrize(
    ("script", "module"),
    [("iin-train", "iin_training.config"), ("iin-serve", "iin_service.rpc"), ("iin", "iin_client.inputs")],
)
def test_a_module_of_our_own_is_no_extra(script, module, digits_bundle, tmp_path):
    words = {"iin-train": ("run", "digits"), "iin-serve": (digits_bundle, "--port", "0"), "iin": ("describe",)}
    result = run(script, *words[script], without=module, temporary=tmp_path)
    assert result.returncode == 1
    assert f"ModuleNotFoundError: import of {module} halted" in result.stderr
    assert "pip install" not in result.stderr
