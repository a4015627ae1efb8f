"""Renders kustomizations and finds one's way in what comes out."""

import copy
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SERVE_YAML = DEPLOY / "serve" / "serve.yaml"
GPU_SERVE_YAML = DEPLOY / "components" / "gpu" / "serve.yaml"
# Everything but what excludes each other, however the overlays were edited: what planted mistakes start from.
FULL = """
namespace: iin
resources: [../../base]
components:
  - ../../serve
  - ../../components/bundle-image-volume
  - ../../components/gcs-fault-tolerance
  - ../../components/gateway
  - ../../components/monitoring
images:
  - {name: iin-serve-cpu, newName: registry.example.com/iin-serve, newTag: 0.1.0-cpu}
  - {name: iin-serve-gpu, newName: registry.example.com/iin-serve, newTag: 0.1.0-gpu}
  - {name: iin-bundle, newName: registry.example.com/iin-bundle, digest: "sha256:%s"}
replacements:
  - source: {kind: RayService, fieldPath: metadata.namespace}
    targets:
      - select: {kind: PrometheusRule}
        fieldPaths:
          - spec.groups.*.rules.[alert=IinAbsent].expr
          - spec.groups.*.rules.[alert=IinNoPod].expr
        options: {delimiter: '"', index: 1}
""" % (64 * "0")
VARIANTS = {
    "full": FULL,
    "gpu": FULL.replace("  - ../../serve\n", "  - ../../serve\n  - ../../components/gpu\n"),
    "init": FULL.replace("/bundle-image-volume\n", "/bundle-init\n  - ../../components/python-proxy\n"),
}
# And the overlays as they stand.
OVERLAYS = (*sorted(path.parent.name for path in DEPLOY.glob("overlays/*/kustomization.yaml")), *VARIANTS)

UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
QUANTITY = r"((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(m|[kMGT]|[KMGT]i)?"
DURATION = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"  # of the Gateway API

Object = dict[str, Any]
Names = dict[str, str]


def rendered(folder: Path) -> list[Object]:
    """The objects of a kustomization.

    Raises:
        ValueError: with kustomize's own words, where it does not render.

    """
    command = ["kubectl", "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0 or "deprecated" in done.stderr:
        raise ValueError(f"kubectl kustomize {folder}: {done.stderr.strip()}")
    return list(yaml.safe_load_all(done.stdout))


@functools.cache
def _rendered(overlay: str) -> list[Object]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed (CONTRIBUTING.md)")
    if overlay not in VARIANTS:
        return rendered(DEPLOY / "overlays" / overlay)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()  # kustomize takes relative paths only
        text = VARIANTS[overlay].replace("../..", os.path.relpath(DEPLOY, folder))
        (folder / "kustomization.yaml").write_text(text)
        return rendered(folder)


def render(overlay: str) -> list[Object]:
    """The objects of an overlay or variant, the caller's to change."""
    return copy.deepcopy(_rendered(overlay))


def only(what: str, found: Sequence[Any], remedy: str = "") -> Any:
    """The one thing that there is.

    Raises:
        ValueError: where there is none, or more than one.

    """
    if len(found) != 1:
        raise ValueError(f"expected one {what}, got {len(found)}{remedy}")
    return found[0]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def named(objects: list[Object], kind: str, name: str) -> Object:
    return only(f"{kind} {name}", [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name])


def ray_service(objects: list[Object]) -> Object:
    return only("RayService", of_kind(objects, "RayService"))["spec"]


def cluster(objects: list[Object]) -> Object:
    return ray_service(objects)["rayClusterConfig"]


def head(objects: list[Object]) -> Object:
    return cluster(objects)["headGroupSpec"]


def workers(objects: list[Object]) -> Object:
    """The one group of workers; every component relies on there being one."""
    return only("group of workers", cluster(objects)["workerGroupSpecs"])


def groups(objects: list[Object]) -> tuple[Object, Object]:
    return head(objects), workers(objects)


def labels(group: Object) -> Names:
    found: Names = group["template"]["metadata"]["labels"]
    return found


def pod(group: Object) -> Object:
    return group["template"]["spec"]


def container(group: Object) -> Object:
    return pod(group)["containers"][0]


def templates(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod template with a name for messages; the head's with the autoscaler, which KubeRay adds to it."""
    template, options = head(objects)["template"], cluster(objects).get("autoscalerOptions", {})
    own = {key: options[key] for key in options if key not in ("idleTimeoutSeconds", "upscalingMode", "version")}
    autoscaler = {"name": "autoscaler", "image": container(head(objects))["image"], **own}
    spec = template["spec"]
    yield "head", {**template, "spec": {**spec, "containers": [*spec["containers"], autoscaler]}}
    yield "workers", workers(objects)["template"]
    for one in of_kind(objects, "StatefulSet"):
        yield one["metadata"]["name"], one["spec"]["template"]


def without_nulls(value: Any) -> Any:
    """Kubernetes and Ray take a field without a value for one that is not there, and their schemas accept most."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value if one is not None] if isinstance(value, list) else value


def serve_config(objects: list[Object]) -> Object:
    """The Serve configuration of the one RayService.

    Raises:
        ValueError: where there is none.

    """
    try:
        found = yaml.safe_load(ray_service(objects)["serveConfigV2"])
    except yaml.YAMLError as error:
        raise ValueError(f"serveConfigV2: expected YAML, got {error}") from error
    if not isinstance(found, dict):
        raise ValueError("serveConfigV2: expected the Serve configuration, got none; list deploy/serve as a component")
    return without_nulls(found)


def application(config: Object) -> Object:
    remedy = "; a second model has an overlay of its own (RUNBOOK.md, Several models)"
    return only("application", config["applications"], remedy)


def deployment(config: Object) -> Object:
    return only("deployment", application(config)["deployments"])


def settings(objects: list[Object]) -> dict[str, str]:
    """Environment that the Ray containers get from their ConfigMap."""
    reference = only("envFrom", container(workers(objects))["envFrom"])
    return named(objects, "ConfigMap", reference["configMapRef"]["name"])["data"]


def selects(selector: Names, labels: Names) -> bool:
    """Whether a selector of labels, which is not empty, selects a pod with these."""
    return bool(selector) and selector.items() <= labels.items()


def quantity(given: str | float) -> float:
    """A Kubernetes quantity in cores or bytes; YAML has those without a unit as numbers."""
    if not (found := re.fullmatch(QUANTITY, str(given))):
        raise ValueError(f"expected a quantity such as 500m or 8Gi, got {given!r}")
    return float(found[1]) * UNITS[found[2] or ""]


def seconds(given: str) -> float:
    """A duration of the Gateway API in seconds."""
    if not re.fullmatch(DURATION, given):
        raise ValueError(f"expected a duration such as 75s or 1m15s, got {given!r}")
    parts = re.findall(r"([0-9]+)([a-z]+)", given)
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1, "ms": 1e-3}[unit] for number, unit in parts)
