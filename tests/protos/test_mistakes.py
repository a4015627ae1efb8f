"""Who makes a mistake in a .proto file is told where."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROTOS = Path(__file__).parents[2] / "protos"


@pytest.mark.parametrize("script", ["generate.py", "reference.py"])
def test_a_mistake_is_told_with_its_line(script, tmp_path):
    protos = Path(shutil.copytree(PROTOS, tmp_path / "protos"))
    (protos / "iin_api" / "v1" / "interpretation.proto").write_text('syntax = "proto3";\nmessage Odd {{\n')
    result = subprocess.run([sys.executable, protos / script, "--check"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "iin_api/v1/interpretation.proto:2:14: " in result.stderr
