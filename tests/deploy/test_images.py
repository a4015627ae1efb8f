"""The Dockerfiles: hadolint, and what it does not know."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .manifests import DEPLOY, ROOT

IMAGE = DEPLOY / "image"
HADOLINT = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")


def hadolint(path):
    if HADOLINT is None:
        pytest.skip("hadolint is not installed")
    return subprocess.run([HADOLINT, "--no-color", path], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", ["Dockerfile", "bundle.Dockerfile"])
def test_hadolint(name):
    done = hadolint(IMAGE / name)
    assert done.returncode == 0, done.stdout


def test_hadolint_finds_a_mistake(tmp_path):
    wrong = tmp_path / "Dockerfile"
    wrong.write_text((IMAGE / "Dockerfile").read_text().replace("--no-install-recommends ", ""))
    assert "DL3015" in hadolint(wrong).stdout


def stages():
    """Instructions by the name of their stage, and the stages that each is made from."""
    text = re.sub(r"\\\n", " ", (IMAGE / "Dockerfile").read_text())
    found = {}
    for line in text.splitlines():
        if start := re.match(r"FROM (\S+) AS (\S+)", line):
            found[start[2]] = [line]
        elif found and line and not line.startswith("#"):
            found[list(found)[-1]].append(line)
    return found


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_what_runs_has_no_compiler_and_no_root(target):
    lines = stages()[target]
    assert lines[0] == f"FROM base AS {target}", "build tools stay in the stages that build"
    assert "USER 1000:1000" in lines
    assert not [line for line in lines if line.startswith(("RUN", "ADD"))]
    packages = next(line for line in stages()["base"] if "apt-get install" in line)
    assert {"bash", "wget"} <= set(packages.split()), "KubeRay's probes call them"


@pytest.mark.parametrize("extra", ["serve", "serve-gpu"])
def test_requirements_are_pinned_and_without_torch(extra):
    done = subprocess.run(
        [sys.executable, IMAGE / "requirements.py", extra], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = {re.match(r"[\w-]+", line)[0].lower() for line in done.stdout.split()}
    assert {"ray", "grpcio", "numpy"} <= names
    assert not names & {"torch", "onnx", "iin-serving"}
    assert ("onnxruntime-gpu" in names) == (extra == "serve-gpu")
    pins = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text().lower(), re.M))
    assert names <= pins


def test_the_context_has_what_the_wheel_needs():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = config["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {package.split("/")[0] for package in packages} <= kept
    assert {"pyproject.toml", "constraints.txt", config["project"]["readme"]} <= kept
