"""Core objects against Kubernetes' own schemas, strictly, and pod templates wrapped as pods."""

import pytest

from .manifests import OVERLAYS, named, render, templates, workers

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
