"""Renders the overlays and finds one's way in what comes out."""

import copy
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SERVE_YAML = DEPLOY / "serve" / "serve.yaml"
GPU_SERVE_YAML = DEPLOY / "components" / "gpu" / "serve.yaml"
# The overlays as they are, prod with its line for GPUs, and one with the components that neither uses.
OVERLAYS = ("dev", "prod", "gpu", "init")
INIT = """
resources: [../../base]
components: [../../serve, ../../components/bundle-init, ../../components/python-proxy]
"""

Object = dict[str, Any]


def kustomization(overlay: str) -> str:
    if overlay == "init":
        return INIT
    text = (DEPLOY / "overlays" / overlay.replace("gpu", "prod") / "kustomization.yaml").read_text()
    return text.replace("# - ../../components/gpu", "- ../../components/gpu") if overlay == "gpu" else text


@functools.cache
def _rendered(overlay: str) -> list[Object]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()  # kustomize takes relative paths only
        text = kustomization(overlay).replace("../..", os.path.relpath(DEPLOY, folder))
        (folder / "kustomization.yaml").write_text(text)
        done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def render(overlay: str) -> list[Object]:
    """The objects of an overlay, the caller's to change."""
    return copy.deepcopy(_rendered(overlay))


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name]
    return found


def ray_service(objects: list[Object]) -> Object:
    (found,) = of_kind(objects, "RayService")
    return found["spec"]


def cluster(objects: list[Object]) -> Object:
    return ray_service(objects)["rayClusterConfig"]


def head(objects: list[Object]) -> Object:
    return cluster(objects)["headGroupSpec"]


def workers(objects: list[Object]) -> Object:
    """The one group of workers; every component relies on there being one."""
    (found,) = cluster(objects)["workerGroupSpecs"]
    return found


def pod(group: Object) -> Object:
    return group["template"]["spec"]


def container(group: Object) -> Object:
    return pod(group)["containers"][0]


def templates(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod template with a name for messages."""
    yield "head", head(objects)["template"]
    yield "workers", workers(objects)["template"]
    for one in of_kind(objects, "StatefulSet"):
        yield one["metadata"]["name"], one["spec"]["template"]


def serve_config(objects: list[Object]) -> Object:
    return yaml.safe_load(ray_service(objects)["serveConfigV2"])


def deployment(config: Object) -> Object:
    (application,) = config["applications"]
    (found,) = application["deployments"]
    return found


def settings(objects: list[Object]) -> dict[str, str]:
    """Environment that the Ray containers get from their ConfigMap."""
    (reference,) = container(workers(objects))["envFrom"]
    return named(objects, "ConfigMap", reference["configMapRef"]["name"])["data"]


def quantity(text: str) -> float:
    """A Kubernetes quantity in cores or bytes."""
    for suffix, factor in {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": 1e-3}.items():
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    return float(text)
