"""Generate the Python code beside the .proto files, or check that it is fresh (--check)."""

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PROTOS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("iin_api/**/*.proto"))
OUTPUTS = ("--python_out=", "--pyi_out=", "--grpc_python_out=", "--mypy_grpc_out=quiet:")


def generate(target: Path) -> None:
    """Write messages, stubs and their types below `target`."""
    tools = str(Path(sys.executable).parent)  # protoc looks for mypy's plugin on the path
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", *(f"{o}{target}" for o in OUTPUTS), *PROTOS],
        check=True,
        env=os.environ | {"PATH": tools + os.pathsep + os.environ.get("PATH", "")},
    )


def main() -> int:
    """Generate in place, or say which committed files differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a file is not fresh")
    if not parser.parse_args().check:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        made = sorted(path.relative_to(folder) for path in Path(folder).rglob("*_pb2*"))
        _, differing, missing = filecmp.cmpfiles(folder, ROOT, [str(path) for path in made], shallow=False)
    for path in differing + missing:
        print(f"protos/{path}: not what the .proto file gives; run make protos", file=sys.stderr)
    return 1 if differing or missing or not made else 0


if __name__ == "__main__":
    sys.exit(main())
