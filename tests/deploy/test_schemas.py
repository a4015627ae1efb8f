"""Objects against the schemas of their kinds, strictly: Kubernetes' own, and those of the operators."""

import pytest

from .custom_resources import KINDS, core_parts, problems
from .manifests import OVERLAYS, cluster, head, named, of_kind, ray_service, render, templates, workers

kubernetes_validate = pytest.importorskip("kubernetes_validate")

VERSION = "1.37"
CORE = {"v1", "apps/v1", "policy/v1", "networking.k8s.io/v1"}


def problem(one):
    try:
        kubernetes_validate.validate(one, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return None


def as_pod(template):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "wrapped"}, "spec": template["spec"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_core_objects(overlay):
    core = [one for one in render(overlay) if one["apiVersion"] in CORE]
    assert {one["kind"] for one in core} >= {"ServiceAccount", "ConfigMap", "NetworkPolicy"}
    assert [found for one in core if (found := problem(one))] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pod_templates(overlay):
    assert [found for _, template in templates(render(overlay)) if (found := problem(as_pod(template)))] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_custom_resources(overlay):
    objects = render(overlay)
    custom = [one for one in objects if one["apiVersion"] not in CORE]
    assert {(one["apiVersion"], one["kind"]) for one in custom} <= set(KINDS)
    assert [found for one in custom for found in problems(one)] == []
    assert [found for one in core_parts(ray_service(objects)) if (found := problem(one))] == []


def test_each_kind_is_somewhere():
    kinds = {(one["apiVersion"], one["kind"]) for one in render("prod")}
    assert kinds >= set(KINDS)


def test_a_mistake_is_found():
    objects = render("prod")
    template = workers(objects)["template"]
    template["spec"]["terminationGraceSeconds"] = 120
    assert "terminationGraceSeconds" in problem(as_pod(template))
    budget = named(objects, "PodDisruptionBudget", "iin-workers")
    budget["spec"]["maxUnavailble"] = 1
    assert "maxUnavailble" in problem(budget)
    policy = named(objects, "NetworkPolicy", "iin")
    policy["spec"]["ingress"][0]["from"][0]["podSelector"] = "iin"
    assert "podSelector" in problem(policy)
    service, autoscaler = core_parts(ray_service(objects))
    service["spec"]["clusterIp"] = "None"
    assert "clusterIp" in problem(service)
    autoscaler["spec"]["containers"][0]["resources"]["limit"] = {}
    assert "limit" in problem(autoscaler)


def spec(kind):
    return lambda objects: of_kind(objects, kind)[0]["spec"]


@pytest.mark.parametrize(
    ("kind", "place", "mistake", "told"),
    [
        ("RayService", workers, {"maxReplica": 3}, "workerGroupSpecs.0.maxReplica: Extra inputs"),
        ("RayService", workers, {"maxReplicas": "3"}, "maxReplicas: Input should be a valid integer"),
        ("RayService", workers, {"minReplicas": -1}, "minReplicas: Input should be greater than or equal to 0"),
        (
            "RayService",
            head,
            {"rayStartParams": {"num-cpus": 0}},
            "rayStartParams.num-cpus: Input should be a valid str",
        ),
        ("RayService", head, {"template": None}, "headGroupSpec.template: Input should be a valid dictionary"),
        ("RayService", cluster, {"rayversion": "2.60.0"}, "rayversion: Extra inputs"),
        ("RayService", cluster, {"autoscalerOptions": {"version": "v3"}}, "autoscalerOptions.version: Input should be"),
        ("RayService", cluster, {"authOptions": {"mode": "on"}}, "authOptions.mode: Input should be"),
        ("RayService", ray_service, {"upgradeStrategy": {"type": "Rolling"}}, "upgradeStrategy.type: Input should be"),
        ("RayService", ray_service, {"serveConfigV2": {}}, "serveConfigV2: Input should be a valid string"),
        ("Gateway", spec("Gateway"), {"listener": []}, "spec.listener: Extra inputs"),
        ("GRPCRoute", spec("GRPCRoute"), {"hostname": ["a"]}, "spec.hostname: Extra inputs"),
        ("SecurityPolicy", spec("SecurityPolicy"), {"targetRef": {}}, "spec.targetRef: Extra inputs"),
        ("BackendTrafficPolicy", spec("BackendTrafficPolicy"), {"timeouts": {}}, "spec.timeouts: Extra inputs"),
        ("PodMonitor", spec("PodMonitor"), {"endpoints": []}, "spec.endpoints: Extra inputs"),
        ("PrometheusRule", spec("PrometheusRule"), {"groups": [{"name": "a", "rules": [{}]}]}, "rules.0.alert: Field"),
    ],
)
def test_a_mistake_in_a_custom_resource_is_found(kind, place, mistake, told):
    objects = render("prod")
    place(objects).update(mistake)
    (one,) = of_kind(objects, kind)
    assert told in "\n".join(problems(one))
    objects = render("prod")
    (one,) = of_kind(objects, kind)
    one["specs"] = {}
    assert problems(one) == ["specs: unknown field"]
