"""The check of overlays: it passes what is shipped and whatever an operator may change, and tells what is wrong."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from .check import core_problem, main, problems
from .manifests import DEPLOY, OVERLAYS, VARIANTS, container, deployment, ray_service, render, rendered, workers
from .rules import rights


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_fits_together(overlay):
    assert list(problems(render(overlay))) == []


@pytest.fixture
def copied(tmp_path):
    """A copy of deploy/ with an overlay `own`, which has everything, to be edited."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed (CONTRIBUTING.md)")
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    (tmp_path / "deploy/overlays/own").mkdir()
    (tmp_path / "deploy/overlays/own/kustomization.yaml").write_text(VARIANTS["full"])
    return tmp_path


def edit(root, path, old, new):
    file = root / "deploy" / path
    text, times = re.subn(old, new, file.read_text(), flags=re.M)
    assert times, f"{path}: expected {old}"
    file.write_text(text)


OWN, RAY, SERVE = "overlays/own/kustomization.yaml", "base/rayservice.yaml", "serve/serve.yaml"
BUDGET, VALKEY = "base/disruption.yaml", "components/gcs-fault-tolerance/valkey.yaml"
ELSEWHERE = """
patches:
  - target: {kind: StatefulSet, name: iin-valkey}
    patch: "{$patch: delete, apiVersion: apps/v1, kind: StatefulSet, metadata: {name: iin-valkey}}"
  - target: {kind: Service, name: iin-valkey}
    patch: "{$patch: delete, apiVersion: v1, kind: Service, metadata: {name: iin-valkey}}"
  - target: {kind: RayService}
    patch: |
      - op: replace
        path: /spec/rayClusterConfig/gcsFaultToleranceOptions/redisAddress
        value: rediss://redis.example.com:6379
"""
SETTINGS = """
patches:
  - target: {kind: ConfigMap, name: iin-settings}
    patch: |
      - {op: replace, path: /data/RAY_USAGE_STATS_ENABLED, value: "1"}
"""
NOTHING = """
patches:
  - target: {TARGET}
    patch: |
      - {op: remove, path: /a}
"""
SECRETS = """---
{apiVersion: external-secrets.io/v1, kind: ExternalSecret, metadata: {name: iin-callers}, spec: {}}
"""
INTERNAL = """
patches:
  - target: {kind: Gateway}
    patch: |
      - {op: add, path: /spec/infrastructure/annotations, value: {networking.gke.io/load-balancer-type: Internal}}
      - {op: add, path: /spec/addresses, value: [{type: IPAddress, value: 10.0.0.7}]}
  - target: {kind: EnvoyProxy}
    patch: |
      - op: add
        path: /spec/provider/kubernetes/envoyService
        value: {annotations: {service.beta.kubernetes.io/aws-load-balancer-scheme: internal}, loadBalancerClass: nlb}
"""
RIGHT = {  # edits by what they are: file, old, new
    "max_replicas": [
        (SERVE, r"max_replicas: \d+", "max_replicas: 16"),
        (RAY, r"maxReplicas: \d+", "maxReplicas: 10"),
    ],
    "units": [
        (RAY, r'cpu: "?(\d+)"?, memory', r"cpu: \1, memory"),
        (RAY, r"memory: \d+Gi, eph", "memory: 90G, eph"),
    ],
    "gpu": [(OWN, r"^  - ../../serve$", "  - ../../serve\n  - ../../components/gpu")],
    "pvc": [(OWN, "bundle-image-volume", "bundle-pvc")],
    "no gateway": [(OWN, "^  - ../../components/gateway\n", "")],
    "no Valkey": [(OWN, "^  - ../../components/gcs-fault-tolerance\n", "")],
    "no monitoring": [(OWN, "^  - ../../components/monitoring\n", "")],
    "namespace": [(OWN, "^namespace: .+", "namespace: faces")],
    "Envoy's namespace": [("components/gateway/network-policy.yaml", "envoy-gateway-system", "gateways")],
    "Redis elsewhere": [(OWN, r"\Z", ELSEWHERE)],
    "a generated name": [(OWN, r"\Z", SETTINGS)],
    "an internal load balancer": [(OWN, r"\Z", INTERNAL)],
    "another operator's": [("base/accounts.yaml", r"\Z", SECRETS)],
    "no patches": [(OWN, r"\Z", "patches:  # none yet\n")],
}


@pytest.mark.parametrize("edits", RIGHT.values(), ids=RIGHT.keys())
def test_what_an_operator_may_change_is_right(copied, edits, capsys):
    for one in edits:
        edit(copied, *one)
    assert main([str(copied / "deploy/overlays/own")]) == 0, capsys.readouterr().out


def patch_of(target):
    return NOTHING.replace("TARGET", target)


@pytest.mark.parametrize(
    ("path", "old", "new", "message"),
    [
        (SERVE, r"max_replicas: \d+", "max_replicas: 1000", "expected room for 1250 replicas"),
        (SERVE, "^    route_prefix: /\n", "    prefix: /\n", "prefix: unknown key"),
        (SERVE, "args: {cpus", "args: {cores", "cores\n +Extra inputs are not permitted"),
        (OWN, "^resources: ", "resource: ", "kubectl kustomize"),
        (OWN, r"\Z", patch_of("kind: Rayservice"), "found no {'kind': 'Rayservice'}"),
        (OWN, r"\Z", patch_of("kind: RayService, version: v1alpha1"), "found no .*'version': 'v1alpha1'}"),
        (OWN, r"\Z", patch_of("kind: RayService, namespace: iin"), "expected no namespace"),
        (OWN, "kind: PrometheusRule", "kind: PrometheusRules", "found no {'kind': 'PrometheusRules'}"),
        (OWN, r"(namespace: )iin((?:.|\n)+)IinNoPod", r"\1faces\2IinAbsent", "IinNoPod: expected"),
        (RAY, "(?<= {14})imagePullPolicy", "imagePolicy", "Pod : .*imagePolicy"),
        (BUDGET, "minAvailable", "minAvailble", "PodDisruptionBudget iin-workers: .*minAvailble"),
        (RAY, "clusterIP", "clusterIp", "Service iin-serve-svc: .*clusterIp"),
        (RAY, "rayVersion", "rayversion", "RayService: .*rayversion"),
        (RAY, "limits: {memory: 1Gi}", "limit: {memory: 1Gi}", "Pod : .*limit"),
        pytest.param(
            *("components/monitoring/rules.yaml", r"histogram_quantile\(", "quantiles(", "unknown function.*quantiles"),
            marks=pytest.mark.skipif(
                shutil.which("promtool") is None, reason="promtool is not installed (CONTRIBUTING.md)"
            ),
        ),
        (BUDGET, "kind: PodDisruptionBudget", "kind: PodDisruptionBudgets", "known, got PodDisr"),
        ("components/gateway/gateway.yaml", "kind: Gateway$", "kind: Gateways", "known, got Gateways"),
        (RAY, 'num-cpus: "2"', 'num-cpus: "2.5"', "num-cpus: '2.5' is not a valid integer"),
        ("base/serve.env", "(?<=DRAIN_TIMEOUT_S=).*", '"90"', "calls_end_before_pods: could not convert"),
        (BUDGET, "name: iin-workers", "name: workers", "PodDisruptionBudget iin-workers, got 0"),
        (RAY, "^  upgradeStrategy:\n    type: .*\n", "", "expected the field 'upgradeStrategy'"),
        (RAY, "^  serveService:\n(    .*\n)+", "", "expected the field 'serveService'"),
        (OWN, "^  - ../../serve\n", "", "got none; list deploy/serve"),
        (SERVE, "^applications:", "applications", "serveConfigV2: expected YAML"),
        (
            *(RAY, r"^      rayStartParams:\n(        .*\n)+", "      rayStartParams:\n"),
            "headGroupSpec.rayStartParams: Input should be a valid dictionary",
        ),
        (RAY, r"^  serveService:\n(    .*\n)+", "  serveService:\n", "RayService: spec.serveService: Input should be"),
        (RAY, "^    autoscalerOptions:", r"\g<0>\n    options:", "autoscalerOptions: Input should be"),
        (RAY, r"^ {14}ports:\n( {16}- .*\n)+", 14 * " " + "ports:\n", "expected the field 'ports'"),
        (SERVE, "(?s)^applications:\n.*", "applications:\n", r"serve.yaml: (.|\n)*\napplications\n"),
        (SERVE, "(?s)^applications:\n.*", "applications: []\n", "one application, got 0"),
        (SERVE, "timeout_s: 60", 'timeout_s: "60"', r"request_timeout_s\n +Input should be a valid number"),
        (SERVE, r"(max_replicas:) (\d+)", r'\1 "\2"', r"max_replicas\n +Input should be a valid integer"),
        (SERVE, r'bundle: ".*"', "bundle:", "expected the field 'bundle'"),
        (VALKEY, r"^          env:\n(            .*\n)+", "          env: []\n", "one variable VALKEY_PASSWORD, got 0"),
        (
            *(SERVE, r"(?s)(  - name: )iin(\n    route_prefix: /)(.*)", r"\g<0>\1other\2other\3"),
            "one application, got 2; a second model has an overlay of its own",
        ),
    ],
)
def test_what_is_wrong_is_told(copied, path, old, new, message, capsys):
    edit(copied, path, old, new)
    assert main([str(copied / "deploy/overlays/own")]) == 1
    assert re.search(message, capsys.readouterr().out)


@pytest.mark.parametrize(
    ("component", "path", "old", "name"),
    [
        (
            "bundle-init",
            "base/references.yaml",
            r"^ +- kind: RayService\n.+initContainers/.+\n",
            "ConfigMap iin-bundle-",
        ),
        ("bundle-pvc", "components/bundle-pvc/kustomization.yaml", "(?<=claimName: )iin-", "Claim iin-bundles"),
    ],
)
def test_names_that_differ_on_two_sides_are_told(copied, component, path, old, name, capsys):
    edit(copied, OWN, "bundle-image-volume", component)
    edit(copied, path, old, "")
    assert main([str(copied / "deploy/overlays/own")]) == 1
    assert re.search(f"{name}.*: expected a pod that names it", capsys.readouterr().out)


def test_values_that_are_still_the_examples_are_listed(copied, capsys):
    own, digest = str(copied / "deploy/overlays/own"), "@sha256:" + 64 * "0"
    assert main([own]) == 0
    listed = [line.strip() for line in capsys.readouterr().out.partition("to be replaced")[2].splitlines()[1:]]
    image = "registry.example.com/iin-serve:0.1.0-cpu"
    assert listed == ["iin.example.com", f"registry.example.com/iin-bundle{digest}", image]
    edit(copied, OWN, "registry.example.com", "registry.test")
    edit(copied, OWN, f"sha256:{64 * '0'}", f"sha256:{64 * '1'}")
    edit(copied, "components/gateway/gateway.yaml", "iin.example.com", "faces.test")
    assert main([own]) == 0
    assert "to be replaced" not in capsys.readouterr().out


def test_a_missing_program_is_named(copied, monkeypatch, tmp_path, capsys):
    own, kubectl = str(copied / "deploy/overlays/own"), Path(shutil.which("kubectl"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([own]) == 2
    assert "expected kubectl (1.27 or newer) on the PATH" in capsys.readouterr().err
    (tmp_path / "kubectl").symlink_to(kubectl)
    assert main([own]) == 0
    assert "alerts is NOT checked: expected promtool" in capsys.readouterr().out


def test_a_bundle_on_a_volume_is_exchanged_and_put_back_as_the_runbook_says(copied):
    """In this overlay alone, in what its replicas are told, and nowhere else."""
    dev, own = (copied / "deploy/overlays" / name for name in ("dev", "own"))
    swap, back = re.findall(r"^sed -i .+$", (DEPLOY / "RUNBOOK.md").read_text(), re.M)

    def after(command):
        subprocess.run(["bash", "-euc", command], cwd=copied, check=True)
        assert rendered(own) == other
        objects = rendered(dev)
        assert list(problems(objects)) == []
        return ray_service(objects).pop("serveConfigV2"), objects

    other = rendered(own)
    before, rest = after(back)
    text = (dev / "kustomization.yaml").read_text()
    assert deployment(yaml.safe_load(before))["user_config"] == {"bundle": "/bundles/model"}
    assert after(swap) == (before.replace("/bundles/model", "/bundles/digits-2"), rest)
    assert after(back) == (before, rest)
    assert (dev / "kustomization.yaml").read_text() == text


def test_the_pod_that_bundles_are_copied_through_is_as_locked_as_the_others():
    writer = yaml.safe_load((DEPLOY / "components/bundle-pvc/writer.yaml").read_text())
    assert core_problem(writer) is None
    assert list(rights("bundle-writer", writer["spec"])) == []
    (volume,) = writer["spec"]["volumes"]
    claim = yaml.safe_load((DEPLOY / "components/bundle-pvc/claim.yaml").read_text())
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (mount,) = writer["spec"]["containers"][0]["volumeMounts"]
    assert mount["name"] == volume["name"]
    read = [one["mountPath"] for one in container(workers(render("dev")))["volumeMounts"] if one["name"] == "bundle"]
    assert [mount["mountPath"]] == read, "what is copied to a path is read there"
    assert writer["spec"]["activeDeadlineSeconds"]
