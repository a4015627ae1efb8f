"""The Dockerfiles: hadolint, and what it does not know."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import parse_qs, unquote

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    assert any("ORT_DISABLE_TELEMETRY=1" in line for line in stages()["base"]), "onnxruntime sends some by default"


def test_workers_may_read_a_bundle_that_was_written_under_another_umask():
    assert "COPY --chmod=755 . /" in (IMAGE / "bundle.Dockerfile").read_text().splitlines()


def steps(stage, word):
    """The commands of the one instruction of a stage that has this word."""
    (instruction,) = [line for line in stages()[stage] if word in line]
    return [" ".join(step.split()) for step in instruction.removeprefix("RUN ").split("&&")]


def place(commands, start):
    (found,) = [index for index, command in enumerate(commands) if command.startswith(start)]
    return found


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_image_lists_what_it_installs(target, tmp_path):
    """Debian's packages by the Dockerfile's own commands, which are run here, on this machine's packages."""
    build, install = steps("build", "apt-get"), steps(f"build-{target}", "pip install")
    python, merge = place(install, "/opt/tools/bin/cyclonedx-py environment"), place(install, "jq ")
    assert any("pip uninstall" in step for step in install[:python]), "it lists what stays"
    assert python < merge
    assert re.search(r"-o (\S+)", install[python])[1] in install[merge].split()
    path = re.search(r"> (\S+)", install[merge])[1]
    assert f"COPY --from=build-{target} {path} /usr/share/sbom/" in stages()[target]

    assert stages()["build"][0] == "FROM base AS build", "with the packages of the images, before more are installed"
    debian = build[: place(build, "apt-get update")]
    if shutil.which("dpkg-query") is None or shutil.which("jq") is None:
        pytest.skip("dpkg-query or jq is not installed")
    numpy = {"name": "numpy", "purl": "pkg:pypi/numpy@2.0"}
    (tmp_path / "python.cdx.json").write_text(json.dumps({"components": [numpy]}))
    script = " && ".join([*debian, install[merge]]).replace("/opt/", f"{tmp_path}/")
    subprocess.run(["sh", "-ec", script], check=True, timeout=60)
    first, system, *packages = json.loads((tmp_path / Path(path).name).read_text())["components"]
    assert (first, system["type"]) == (numpy, "operating-system")
    names = subprocess.check_output(["dpkg-query", "--show", "--showformat", "${Package}\n"], text=True).split()
    assert [one["name"] for one in packages] == names
    for one in packages:
        name, version, about = re.fullmatch(r"pkg:deb/debian/([^+@]+)@([^+?]+)\?([^+@]+)", one["purl"]).groups()
        assert (unquote(name), unquote(version)) == (one["name"], one["version"])
        assert {"arch", "distro", "upstream"} == parse_qs(about).keys()
        assert parse_qs(about)["distro"] == [f"{system['name']}-{system['version']}"]


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
NEEDS = {
    "cpu": PROJECT["project"]["dependencies"] + EXTRAS["serve"],
    "gpu": PROJECT["project"]["dependencies"] + EXTRAS["serve-gpu"],
    "build": PROJECT["dependency-groups"]["image"] + PROJECT["build-system"]["requires"],
}
# The image's Python and system, whatever the tests run on.
IMAGE_IS = {
    "python_version": "3.11",
    "python_full_version": "3.11.2",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
}


def requirements(texts, extras=("",)):
    """Requirements that hold in the image; the project's own extras, as in iin-serving[client], by what they need."""
    for text in texts:
        one = Requirement(text)
        if one.name == PROJECT["project"]["name"]:
            yield from requirements([needed for extra in one.extras for needed in EXTRAS[extra]])
        elif one.marker is None or any(one.marker.evaluate(IMAGE_IS | {"extra": extra}) for extra in extras):
            yield one


def needed_by(one, parents):
    """What a requirement leads to; where it is not installed here, all that the lock's own word says."""
    try:
        return list(requirements(importlib.metadata.requires(one.name) or [], ("", *one.extras)))
    except importlib.metadata.PackageNotFoundError:
        led = {canonicalize_name(one.name)}
    while further := {name for name in parents if name not in led and parents[name] & led}:
        led |= further
    return [Requirement(name) for name in sorted(led)]


def lock_faults(text, texts):
    """What is wrong with a lock for these requirements."""
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.M))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    found, parents = {}, {}
    for entry in re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.M).strip()):
        if (start := re.match(r"([\w.-]+)(?:\[\S+\])?==(\S+)", entry)) is None:
            yield f"expected a pinned package, got {entry}"
            continue
        name, version = canonicalize_name(start[1]), start[2]
        found[name] = version
        via = re.findall(r"^[ #]*(\w[\w.-]*)", entry.partition("# via")[2], re.M)
        parents[name] = {canonicalize_name(parent) for parent in via}
        if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry):
            yield f"{name}: expected hashes"
        # CUDA's packages are pinned in the lock only, in the versions that onnxruntime-gpu asks for.
        if version != pins.get(name, version if name.startswith("nvidia-") else None):
            yield f"{name}: expected the version of constraints.txt, got {version}"
    for name, needing in parents.items():
        if missing := needing - found.keys() - {PROJECT["project"]["name"]}:
            yield f"{name}: expected in the lock what needs it, got no {sorted(missing)}"
    waiting, seen = list(requirements(texts)), []
    while waiting:
        if (one := waiting.pop()) in seen:
            continue
        seen.append(one)
        version = found.get(canonicalize_name(one.name))
        if version is None or not one.specifier.contains(version, prereleases=True):
            yield f"{one}: expected in the lock, got {version}"
        waiting += needed_by(one, parents)
    if more := found.keys() - {canonicalize_name(one.name) for one in seen}:
        yield f"expected only what is needed, got {sorted(more)}"


def lock(kind):
    return (IMAGE / f"requirements-{kind}.txt").read_text()


@pytest.mark.parametrize("kind", NEEDS)
def test_the_lock_has_nothing_more_and_nothing_less_as_far_as_metadata_is_installed(kind):
    assert list(lock_faults(lock(kind), NEEDS[kind])) == [], "make locks"


def without(name):
    """The entry of a package, for a lock from which it was deleted."""
    return rf"^{name}==(.|\n)+?(?=^\w|\Z)"


def planted(pin, *via):
    """An entry before that of the package which is matched, for a lock into which it was written."""
    needed = "".join(f"    #   {parent}\n" for parent in via)
    return f"{pin} \\\\\n    --hash=sha256:{'0' * 64}\n    # via\n{needed}\\g<0>"


OURS = "iin-serving==0.1.0 --hash=sha256:" + "0" * 64 + "\nnumpy=="
TORCH = "torch==2.13.0 --hash=sha256:" + "0" * 64 + "\nnumpy=="
HASHES = r"^( +--hash=\S+(?: \\)?\n)+(?= +# via\n +#   -c constraints.txt\n +#   ray\n)"


# Neither onnxruntime-gpu nor cyclonedx-bom is installed where tests run. Of what they need, an entry that is missing is
# found where another one names it, and not where it stands at the end of a chain.
@pytest.mark.parametrize(
    ("kind", "old", "new", "fault"),
    [
        ("cpu", r"^numpy==\S+", "numpy==1.0.0", "numpy: expected the version"),
        ("cpu", r"^numpy==\S+", "numpy", "expected a pinned package"),
        ("cpu", HASHES, "", "expected hashes"),
        ("cpu", without("grpcio-health-checking"), "", "grpcio-health-checking: expected in the lock"),
        ("cpu", without("aiosignal"), "", "aiosignal.*: expected in the lock"),
        ("cpu", r"^numpy==", OURS, "iin-serving: expected the version"),
        ("cpu", r"^numpy==", TORCH, "expected only what is needed"),
        ("cpu", r"\A", "--index-url https://example.com/simple\n", "expected a pinned package"),
        ("cpu", r"^numpy==", planted("torch==2.13.0", "numpy"), r"expected only what is needed, got \['torch'\]"),
        ("gpu", without("onnxruntime-gpu"), "", "onnxruntime-gpu.*: expected in the lock, got None"),
        ("gpu", without("nvidia-cudnn-cu13"), "", r"nvidia-cublas: expected in the lock what needs it.*'nvidia-cudnn"),
        ("gpu", without("nvidia-cufft"), "", r"nvidia-nvjitlink: expected in the lock what needs it.*'nvidia-cufft'"),
        ("gpu", r"^numpy==", planted("nvidia-nccl==1.0", "torch"), r"nvidia-nccl: .*what needs it.*'torch'"),
        ("gpu", r"^numpy==", planted("nvidia-nccl==1.0", "ray"), r"only what is needed, got \['nvidia-nccl'\]"),
        ("gpu", r"^numpy==", planted("nvidia-nccl==1.0"), r"only what is needed, got \['nvidia-nccl'\]"),
        ("gpu", r"^numpy==", planted("nvidia-a==1", "nvidia-a"), r"only what is needed, got \['nvidia-a'\]"),
        ("build", without("cyclonedx-bom"), "", "cyclonedx-bom: expected in the lock, got None"),
        ("build", without("py-serializable"), "", "defusedxml: expected in the lock what needs it"),
        ("build", without("attrs"), "", "attrs.*: expected in the lock, got None"),
    ],
)
def test_a_mistake_in_a_lock_is_found(kind, old, new, fault):
    text, times = re.subn(old, new, lock(kind), count=1, flags=re.M)
    assert times == 1
    assert any(re.search(fault, one) for one in lock_faults(text, NEEDS[kind]))


def test_a_new_requirement_makes_the_lock_stale():
    assert list(lock_faults(lock("cpu"), [*NEEDS["cpu"], "rich"]))
    assert list(lock_faults(lock("cpu"), [*NEEDS["cpu"], "numpy>=999"]))


def test_the_context_has_what_the_wheel_needs():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {package.split("/")[0] for package in packages} <= kept
    assert {"pyproject.toml", "deploy/image/requirements-*.txt", PROJECT["project"]["readme"]} <= kept


def test_what_links_point_to_is_sent_to_the_builder():
    links = [path for path in (ROOT / "service").rglob("*") if path.is_symlink()]
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert links, "serve.yaml"
    assert all(f"!{path.resolve().relative_to(ROOT)}" in sent for path in links)
