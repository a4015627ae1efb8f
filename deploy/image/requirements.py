"""Print what an extra of pyproject.toml needs, without the project itself: `python requirements.py serve`."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
own = f"{project['name']}["  # as in iin-serving[client]


def needs(requirements: list[str]) -> list[str]:
    """`requirements`, with the project's own extras replaced by what they need."""
    found = []
    for one in requirements:
        found += needs(extras[one.removeprefix(own).rstrip("]")]) if one.startswith(own) else [one]
    return found


print(*sorted(set(needs(project["dependencies"] + extras[sys.argv[1]]))), sep="\n")
