"""Alerts by promtool's own unit tests; every series that is read is one that is exported."""

import copy
import json
import re
import shutil
import subprocess

import grpc
import pytest
import yaml
from iin_api.inference import grpc_service_pb2
from iin_api.v1 import interpretation_pb2

from .manifests import DEPLOY, ROOT, named, render

MONITORING = DEPLOY / "components" / "monitoring"
RULES = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
# From the service's own source: Ray adds the prefix, and what Prometheus adds to counters and histograms.
SOURCE = (ROOT / "service" / "iin_service" / "metrics.py").read_text()
ENDINGS = {"Counter": ["_total"], "Gauge": [""], "Histogram": ["_bucket", "_sum", "_count"]}
OURS = {
    f"ray_{name}": {f"ray_{name}{ending}" for ending in ENDINGS[kind]}
    for kind, name in re.findall(r"(Counter|Gauge|Histogram)\(\s*\"(\w+)\"", SOURCE)
}
RAYS = {
    "ray_serve_deployment_status",
    "ray_serve_deployment_replica_healthy",
    "ray_serve_autoscaling_target_replicas",
    "ray_node_mem_used",
    "ray_node_mem_total",
    "kube_pod_status_ready",  # kube-state-metrics'
}


def promtool(folder, rules, *arguments):
    """`promtool`, by default `test rules`, on the rules as Prometheus reads them."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (CONTRIBUTING.md)")
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    shutil.copy(MONITORING / "test.yaml", folder)
    command = ["promtool", *(arguments or ("test", "rules", "test.yaml"))]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_alerts(tmp_path):
    done = promtool(tmp_path, RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("alert", "old", "new"),
    [
        ("IinErrorRatio", "> 0.01", "> 0.02"),
        ("IinErrorRatio", "INTERNAL|", "INVALID_ARGUMENT|"),
        ("IinErrorRatio", "> 5", "> 0"),
        ("IinErrorRatio", "> 5", "> 15"),
        ("IinOverload", "RESOURCE_EXHAUSTED", "EXHAUSTED"),
        ("IinOverload", "> 5", "> 0"),
        ("IinLatency", "Sample|", ""),
        ("IinLatency", "Sample|", "Sample|ModelInfer|"),
        ("IinQueue", "_bucket", "_buckets"),
        ("IinReplicaUnhealthy", "< 3", "> 3"),
        ("IinReplicasMissing", "sum by", "min by"),
        ("IinReplicasMissing", ", ray_io_cluster)", ")"),
        ("IinReplicasMissing", "or 0 *", "or 3 *"),
        ("IinFewPods", "< 2", "< 1"),
        ("IinFewPods", "-worker", ""),
        ("IinFewPods", "true", "false"),
        ("IinNoPod", "< 1", "< 2"),
        ("IinNoPod", "< 1", "< 0"),
        ("IinNoPod", "absent", "count"),
        ("IinBundleRefused", "max by", "min by"),
        ("IinAbsent", "absent", "count"),
        ("IinHeadMemory", '{IsHeadNode="true"}', ""),
        ("IinLikelihoodDrift", "> 200", "> 0"),
        ("IinLikelihoodDrift", "> 0.05", "> 0.2"),
    ],
)
def test_a_wrong_alert_is_found(tmp_path, alert, old, new):
    rules = copy.deepcopy(RULES)
    (wrong,) = [rule for group in rules["groups"] for rule in group["rules"] if rule["alert"] == alert]
    assert old in wrong["expr"]
    wrong["expr"] = wrong["expr"].replace(old, new)
    done = promtool(tmp_path, rules)
    assert done.returncode != 0
    assert f"alertname: {alert}," in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("alert", "field", "value"),
    [
        *((rule["alert"], "for", None) for rule in ALERTS),
        *(
            (rule["alert"], "expr", re.sub(r"\[(5m|1h)\]", "[1d]", rule["expr"]))
            for rule in ALERTS
            if "[" in rule["expr"]
        ),
    ],
    ids=lambda value: value if value in {rule["alert"] for rule in ALERTS} else "",
)
def test_an_alert_too_early_or_without_end_is_found(tmp_path, alert, field, value):
    rules = copy.deepcopy(RULES)
    (wrong,) = [rule for group in rules["groups"] for rule in group["rules"] if rule["alert"] == alert]
    assert wrong[field] != value
    wrong[field] = value
    done = promtool(tmp_path, rules)
    assert done.returncode != 0
    assert f"alertname: {alert}," in done.stdout + done.stderr


CALLERS_FAULTS = {
    *("OK", "CANCELLED", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "OUT_OF_RANGE", "FAILED_PRECONDITION", "NOT_FOUND"),
    *("ALREADY_EXISTS", "ABORTED", "PERMISSION_DENIED", "UNAUTHENTICATED"),
    "RESOURCE_EXHAUSTED",  # which has its own alert
}


def test_every_status_that_is_the_services_fault_is_told():
    (alert,) = [rule for rule in ALERTS if rule["alert"] == "IinErrorRatio"]
    counted = [set(codes.split("|")) for codes in re.findall('code=~"(.+?)"', alert["expr"])]
    assert counted == 2 * [{code.name for code in grpc.StatusCode} - CALLERS_FAULTS]


def test_slow_calls_of_every_kind_but_streams_are_told():
    (alert,) = [rule for rule in ALERTS if rule["alert"] == "IinLatency"]
    left_out = set(re.search(r'rpc!~"(.+?)"', alert["expr"])[1].split("|"))
    services = (
        interpretation_pb2.DESCRIPTOR.services_by_name["InterpretationService"],
        grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
    )
    streams = {rpc.name for service in services for rpc in service.methods if rpc.server_streaming}
    assert left_out == streams | {"Respond"}, "which draws as many samples as it is asked for"


def dashboard():
    return json.loads(named(render("full"), "ConfigMap", "iin-dashboard")["data"]["iin.json"])


def test_every_series_is_exported():
    expressions = [rule["expr"] for rule in ALERTS]
    expressions += [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    read = set(re.findall(r"\b(?:ray_(?!io_cluster)|kube_)\w+", "\n".join(expressions)))
    assert read <= RAYS.union(*OURS.values())
    assert [name for name, series in OURS.items() if not read & series] == [], "exported, and looked at by nobody"


@pytest.mark.parametrize("mistake", ["", "by ("], ids=["as it is", "a bracket lost"])
def test_what_panels_ask_is_promql(tmp_path, mistake):
    asked = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    expressions = [one.replace("$__rate_interval", "1m") for one in asked]  # as Grafana does
    if mistake:
        expressions[0] = expressions[0].replace(mistake, "", 1)
    rules = [{"record": f"iin:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    done = promtool(tmp_path, {"groups": [{"name": "panels", "rules": rules}]}, "check", "rules", "rules.yaml")
    assert (done.returncode != 0) == bool(mistake), done.stdout + done.stderr


def test_the_dashboard_is_whole():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
