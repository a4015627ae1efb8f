"""The README's code blocks do what they say: each runs against the live service, or names a real target."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import BIN

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"```(sh|python)\n(.*?)```", (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text(), re.S
)
LINES = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines() if line.strip()]


@pytest.fixture
def elsewhere(digits_bundle, tmp_path):
    """An empty folder that has the demo's bundle where the README says."""
    (tmp_path / "build" / "demo").mkdir(parents=True)
    (tmp_path / "build" / "demo" / "bundle").symlink_to(digits_bundle)
    return tmp_path


def run(service, folder, command):
    environment = os.environ | {"IIN_ADDRESS": service.address, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("http") or (ROOT / page).parent.joinpath(link).exists(), link
    assert not re.search(r"^[A-Z]+_[A-Z]+$", text, re.M)


def test_there_are_blocks_of_every_kind():
    assert {kind for kind, _ in BLOCKS} == {"sh", "python"}
    assert any(line.startswith("make demo") for line in LINES)
    assert any(line.startswith("make test") for line in LINES)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make")])
def test_a_make_line_names_a_target(line):
    target = shlex.split(line, comments=True)[1]
    result = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("line", [line for line in LINES if not line.startswith("make")])
def test_a_command_line_runs(service, elsewhere, line):
    result = run(service, elsewhere, ["bash", "-c", line])
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("kind", "block"), re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "docs" / "CLIENTS.md").read_text(), re.S)
)
def test_a_client_runs(service, elsewhere, kind, block):
    (elsewhere / "protos").symlink_to(ROOT / "protos")
    block = block.replace("localhost:9000", service.address)
    result = run(service, elsewhere, ["bash", "-ec", block] if kind == "sh" else [sys.executable, "-c", block])
    assert result.returncode == 0, result.stderr
    assert result.stdout or list(elsewhere.glob("*.webp"))


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "python"])
def test_a_python_block_runs(service, elsewhere, block):
    result = run(service, elsewhere, [sys.executable, "-c", block])
    assert result.returncode == 0, result.stderr
    assert list(elsewhere.glob("digit-*.png"))
