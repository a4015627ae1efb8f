"""Whether overlays fit together, as far as that goes without a cluster: python -m tests.deploy.check [OVERLAY...]

Of the overlays as they stand, edited or not; without arguments of all in deploy/overlays. Prints what is wrong, and
which values are still the example's.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import yaml

from . import custom_resources, serve_schema
from .manifests import DEPLOY, Names, Object, of_kind, ray_service, rendered, serve_config, templates, without_nulls
from .rules import RULES

__all__ = ["core_problem", "main", "problems"]

VERSION = "1.37"  # of Kubernetes


def problems(objects: list[Object]) -> Iterator[str]:
    """What is wrong with the objects of an overlay; where their schemas tell something, no more than that."""
    if found := list(_schema_problems(objects)):
        yield from found
        return
    objects = without_nulls(objects)
    for one in of_kind(objects, "PrometheusRule"):
        yield from _alert_problems(one["spec"])
    for rule in RULES:
        try:
            yield from rule(objects)
        except ValueError as error:
            yield f"{rule.__name__}: {error}"
        except KeyError as error:
            yield f"{rule.__name__}: expected the field {error}"


def _schema_problems(objects: list[Object]) -> Iterator[str]:
    for one in of_kind(objects, "RayService"):
        if found := custom_resources.problems(one):  # the rest is read out of it
            yield from (f"RayService: {message}" for message in found)
            return
    service = {"apiVersion": "v1", "kind": "Service", **ray_service(objects)["serveService"]}
    serve_config(objects)  # raises where there is none
    pods = [{"apiVersion": "v1", "kind": "Pod", **template} for _, template in templates(without_nulls(objects))]
    for one in [*objects, service, *pods]:
        if (one["apiVersion"], one["kind"]) in custom_resources.KINDS:
            yield from (f"{one['kind']}: {found}" for found in custom_resources.problems(one))
        elif found := core_problem(one):
            yield f"{one['kind']} {one['metadata'].get('name', '')}: {found}"
    yield from (f"serve.yaml: {found}" for found in serve_schema.problems(ray_service(objects)["serveConfigV2"]))


OPERATED = {version.partition("/")[0] for version, _ in custom_resources.KINDS}


def core_problem(one: Object) -> str | None:
    """What is wrong with an object of Kubernetes' own; of other operators', such as an ExternalSecret, nothing."""
    try:
        kubernetes_validate.validate(one, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    except kubernetes_validate.SchemaNotFoundError:
        group = one["apiVersion"].rpartition("/")[0]
        if group in OPERATED or "." not in group or group.endswith(".k8s.io"):
            return f"expected a kind that is known, got {one['kind']} of {one['apiVersion']}"
    return None


def _alert_problems(rules: Object) -> Iterator[str]:
    if shutil.which("promtool") is None:  # which the command tells
        return
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(rules, file)
        file.flush()
        command = ["promtool", "check", "rules", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        yield f"PrometheusRule: {done.stderr.strip()}"


KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")


def _idle_patches(folder: Path, objects: list[Object]) -> Iterator[str]:
    """Those that select nothing, of which kustomize says nothing; but for what a component has that is left out."""
    path = next(path for name in KUSTOMIZATIONS if (path := folder / name).exists())  # kubectl found one
    given = yaml.safe_load(path.read_text())

    def deletes(patch: Object) -> bool:
        return "$patch" in (patch.get("patch") or (folder / patch["path"]).read_text())

    targets = [one["target"] for one in given.get("patches") or () if "target" in one and not deletes(one)]
    for target in (target for target in targets if "namespace" in target):
        yield f"expected no namespace, which objects get after their patches, in {target}"
    targets += [one["select"] for given in given.get("replacements") or () for one in given.get("targets", ())]
    left_out = {kind for _, kind in custom_resources.KINDS} - {one["kind"] for one in objects}
    for target in targets:
        if target.get("kind") not in left_out and not any(_selects(target, one) for one in objects):
            yield f"expected something to patch, found no {target}"


def _selects(target: Names, one: Object) -> bool:
    group, _, version = one["apiVersion"].rpartition("/")
    # A generator puts a hash behind the name.
    hashed = "(-[0-9a-z]{10})?" if one["kind"] in ("ConfigMap", "Secret") else ""
    wanted = {**target, "name": f"(?:{target.get('name', '.*')}){hashed}"}
    found = {"group": group, "version": version, "kind": one["kind"], "name": one["metadata"]["name"]}
    return all(re.fullmatch(wanted.get(field, ".*"), value) for field, value in found.items())


# Values of the shipped overlays that exist nowhere; the label iin.example.com/caller may stay.
EXAMPLES = re.compile(r"\b(?:registry|bundles|iin)\.example\.com\b(?!/caller)[\w./:@-]*|\b0{64}\b")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.check", description=__doc__)
    parser.add_argument("overlays", nargs="*", type=Path, metavar="OVERLAY", help="folder of a kustomization")
    given = parser.parse_args(arguments).overlays
    if shutil.which("kubectl") is None:
        print("expected kubectl (1.27 or newer) on the PATH, which renders the overlays", file=sys.stderr)
        return 2
    if shutil.which("promtool") is None:
        print("the syntax of alerts is NOT checked: expected promtool (Debian's package prometheus) on the PATH")
    wrong = False
    for folder in given or sorted(path.parent for path in DEPLOY.glob("overlays/*/kustomization.yaml")):
        examples: list[str] = []
        try:
            objects = rendered(folder)
            examples = sorted(set(EXAMPLES.findall(json.dumps(objects))))
            found = [*_idle_patches(folder, objects), *problems(objects)]
        except (ValueError, OSError) as error:
            found = [str(error)]
        except KeyError as error:
            found = [f"expected the field {error}"]
        print(f"{folder}: {'as it should be' if not found else f'{len(found)} wrong'}", *found, sep="\n  ")
        if examples:
            print("  example values, to be replaced before it is applied:", *examples, sep="\n    ")
        wrong = wrong or bool(found)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
