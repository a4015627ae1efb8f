"""The schemas of the operators find planted mistakes; test_check.py has those that Kubernetes' own find."""

import pytest

from .custom_resources import KINDS, problems
from .manifests import cluster, head, of_kind, ray_service, render, workers


def test_each_kind_is_somewhere():
    kinds = {(one["apiVersion"], one["kind"]) for one in render("full")}
    assert kinds >= set(KINDS)


def spec(kind):
    return lambda objects: of_kind(objects, kind)[0]["spec"]


def listener_tls(objects):
    return spec("Gateway")(objects)["listeners"][0]["tls"]


CPUS = {"rayStartParams": {"num-cpus": 0}}
TIMEOUT = {"timeout": {"http": {"requestTimeout": "75"}}}
RULE = {"groups": [{"name": "a", "rules": [{}]}]}
POLICY = "BackendTrafficPolicy"


@pytest.mark.parametrize(
    ("kind", "place", "mistake", "message"),
    [
        ("RayService", workers, {"maxReplica": 3}, "workerGroupSpecs.0.maxReplica: Extra inputs"),
        ("RayService", workers, {"maxReplicas": "3"}, "maxReplicas: Input should be a valid integer"),
        ("RayService", workers, {"minReplicas": -1}, "minReplicas: Input should be greater than or equal to 0"),
        ("RayService", head, CPUS, "rayStartParams.num-cpus: Input should be a valid str"),
        ("RayService", head, {"template": None}, "headGroupSpec.template: Input should be a valid dictionary"),
        ("RayService", cluster, {"rayversion": "2.60.0"}, "rayversion: Extra inputs"),
        ("RayService", cluster, {"autoscalerOptions": {"version": "v3"}}, "autoscalerOptions.version: Input should be"),
        ("RayService", cluster, {"authOptions": {"mode": "on"}}, "authOptions.mode: Input should be"),
        ("RayService", ray_service, {"upgradeStrategy": {"type": "Rolling"}}, "upgradeStrategy.type: Input should be"),
        ("RayService", ray_service, {"serveConfigV2": {}}, "serveConfigV2: Input should be a valid string"),
        ("Gateway", spec("Gateway"), {"listener": []}, "spec.listener: Extra inputs"),
        ("GRPCRoute", spec("GRPCRoute"), {"hostname": ["a"]}, "spec.hostname: Extra inputs"),
        ("Gateway", listener_tls, {"mode": "Passthrough"}, "tls.mode: Input should be"),
        ("Gateway", spec("Gateway"), {"infrastructure": {"parameters": {}}}, "infrastructure.parameters: Extra"),
        ("EnvoyProxy", spec("EnvoyProxy"), {"shutdown": {"drainTimeout": "90"}}, "shutdown.drainTimeout: String"),
        ("EnvoyProxy", spec("EnvoyProxy"), {"provider": {"type": "Host"}}, "provider.type: Input should be 'Kub"),
        ("SecurityPolicy", spec("SecurityPolicy"), {"targetRef": {}}, "spec.targetRef: Extra inputs"),
        (POLICY, spec(POLICY), {"timeouts": {}}, "spec.timeouts: Extra inputs"),
        (POLICY, spec(POLICY), TIMEOUT, "timeout.http.requestTimeout: String should match"),
        ("PodMonitor", spec("PodMonitor"), {"endpoints": []}, "spec.endpoints: Extra inputs"),
        ("PrometheusRule", spec("PrometheusRule"), RULE, "rules.0.alert: Field"),
    ],
)
def test_a_mistake_in_a_custom_resource_is_found(kind, place, mistake, message):
    objects = render("full")
    place(objects).update(mistake)
    (one,) = of_kind(objects, kind)
    assert message in "\n".join(problems(one))
    objects = render("full")
    (one,) = of_kind(objects, kind)
    one["specs"] = {}
    assert problems(one) == ["specs: unknown field"]
