"""The network policies as they must be: what is let in here is let in by everybody who deploys this."""

import json
import re
from urllib.parse import urlsplit

from .manifests import Object, of_kind, selects, templates

PART = "app.kubernetes.io/part-of"
COMPONENT = "app.kubernetes.io/component"
CALLER = {"matchLabels": {"iin.example.com/caller": "true"}}
OWN = {"podSelector": {"matchLabels": {PART: "iin"}}}
NAMED = {"matchLabels": {"kubernetes.io/metadata.name": "..."}}  # a name of one's own


def _tcp(*ports: int) -> list[Object]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def _policy(component: str, **sides: list[Object]) -> Object:
    selector = {"matchLabels": {PART: "iin", COMPONENT: component}}
    return {"podSelector": selector, "policyTypes": [side.capitalize() for side in sides], **sides}


def _from(namespaces: Object, pods: Object | None, *ports: int) -> Object:
    peer = {"namespaceSelector": namespaces} | ({"podSelector": pods} if pods else {})
    return {"from": [peer], "ports": _tcp(*ports)}


OPERATOR = {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}
PROXIES = {"matchLabels": {COMPONENT: "proxy", "app.kubernetes.io/managed-by": "envoy-gateway"}}
# Replicas behind HAProxy listen themselves, on 40000-41000: open among the pods, closed to others.
POLICIES = {
    "iin": {
        **OWN,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [OWN]},
            _from(CALLER, CALLER, 9000),
            _from(NAMED, OPERATOR, 8265, 8000, 52365),
        ],
        "egress": [{"to": [OWN]}, {"ports": [{"protocol": "UDP", "port": 53}, *_tcp(53)]}],
    },
    "iin-head": _policy("head", egress=[{"ports": _tcp(443, 6443)}]),
    "iin-bundle": _policy("worker", egress=[{"ports": _tcp(443)}]),
    "iin-gateway": _policy("worker", ingress=[_from(NAMED, PROXIES, 9000)]),
    "iin-monitoring": {**OWN, "policyTypes": ["Ingress"], "ingress": [_from(NAMED, None, 8080)]},
}

# The kind of what needs each.
NEEDED = {"iin": "RayService", "iin-head": "RayService", "iin-gateway": "Gateway", "iin-monitoring": "PodMonitor"}


def _with_any_names(spec: Object) -> Object:
    """A policy's spec without the names of namespaces, which an operator may choose."""
    text = re.sub(r'("kubernetes.io/metadata.name": )"[^"]+"', r'\1"..."', json.dumps(spec))
    found: Object = json.loads(text)
    return found


def only_known_peers(objects):
    """A policy too many lets somebody in, as policies add up."""
    found = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "NetworkPolicy")}
    needed = {name for name, kind in NEEDED.items() if of_kind(objects, kind)}
    data = [one.get("data", {}) for one in of_kind(objects, "ConfigMap")]
    for url in (one["BUNDLE_URL"] for one in data if "BUNDLE_URL" in one):
        needed.add("iin-bundle")  # an init container downloads, with components/bundle-init
        if (urlsplit(url).scheme, urlsplit(url).port or 443) != ("https", 443):
            yield f"BUNDLE_URL: expected https on port 443, as no policy lets workers out to another, got {url}"
    if missing := needed - set(found):
        yield f"expected the NetworkPolicies {sorted(missing)}"
    for name, spec in found.items():
        if _with_any_names(spec) != POLICIES.get(name):
            yield f"NetworkPolicy {name}: expected that of POLICIES in tests/deploy/policies.py, got {spec}"
        selector = spec["podSelector"].get("matchLabels")
        selected = [selects(selector, template["metadata"]["labels"]) for _, template in templates(objects)]
        if not (all if name == "iin" else any)(selected):
            yield f"NetworkPolicy {name}: expected to select pods that there are"


RULES = [only_known_peers]
