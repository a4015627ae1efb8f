"""The gateway as it must be, where there is one: who calls from outside comes through it."""

import fnmatch

from .manifests import named, of_kind, only, ray_service, seconds, serve_config

# Of the port, with the module that each is generated in.
SERVICES = {
    "iin_api.v1.InterpretationService": "iin_api.v1.interpretation_pb2_grpc",
    "inference.GRPCInferenceService": "iin_api.inference.grpc_service_pb2_grpc",
    "grpc.health.v1.Health": "grpc_health.v1.health_pb2_grpc",
}


def the_gateway_leads_to_the_service(objects):
    """Where there is one: TLS, a key for every call, the port's own services only, and this Service behind it."""
    for route in of_kind(objects, "GRPCRoute"):
        service = ray_service(objects)["serveService"]["metadata"]["name"]
        rule = only("rule of the GRPCRoute", route["spec"]["rules"])
        backends = [(one["name"], one["port"]) for one in rule["backendRefs"]]
        if backends != [(service, 9000)]:
            yield f"GRPCRoute: expected {service}:9000, got {backends}"
        served = [{"type": "Exact"} | match["method"] for match in rule["matches"]]
        if sorted(served, key=str) != sorted(({"type": "Exact", "service": name} for name in SERVICES), key=str):
            yield f"GRPCRoute: expected the services of the port, each as a whole, got {served}"
        gateway = only("Gateway", of_kind(objects, "Gateway"))
        listeners = [(gateway["metadata"]["name"], one["name"]) for one in gateway["spec"]["listeners"]]
        whole = (gateway["metadata"]["name"], None)
        if not {(one["name"], one.get("sectionName")) for one in route["spec"]["parentRefs"]} <= {whole, *listeners}:
            yield f"GRPCRoute: expected parentRefs of {listeners}, got {route['spec']['parentRefs']}"
        for listener in gateway["spec"]["listeners"]:
            if listener["protocol"] != "HTTPS" or not listener.get("tls", {}).get("certificateRefs"):
                yield f"Gateway: expected TLS on {listener['name']}"
            names = route["spec"].get("hostnames")  # the listener's, which may be *.example.com, where none is given
            if names and not fnmatch.filter(names, listener["hostname"]):
                yield "GRPCRoute: expected the host name of the Gateway"
        target = {"group": "gateway.networking.k8s.io", "kind": "GRPCRoute", "name": route["metadata"]["name"]}
        keys = of_kind(objects, "SecurityPolicy")
        for policy in keys + of_kind(objects, "BackendTrafficPolicy"):
            if policy["spec"]["targetRefs"] != [target]:
                yield f"{policy['kind']}: expected targetRefs [{target}], got {policy['spec']['targetRefs']}"
        if not any(one["spec"].get("apiKeyAuth", {}).get("credentialRefs") for one in keys):
            yield "SecurityPolicy: expected one with keys for the route"
        for policy in of_kind(objects, "BackendTrafficPolicy"):
            timeout = policy["spec"]["timeout"]["http"]["requestTimeout"]
            if seconds(timeout) <= serve_config(objects)["grpc_options"]["request_timeout_s"]:
                yield "BackendTrafficPolicy: expected requestTimeout above request_timeout_s"


def the_gateway_outlives_a_proxy(objects):
    """Envoy Gateway's default is one proxy that drains for less than the longest call."""
    for gateway in of_kind(objects, "Gateway"):
        if "infrastructure" not in gateway["spec"]:
            yield "Gateway: expected infrastructure.parametersRef, the name of an EnvoyProxy"
            continue
        spec = named(objects, "EnvoyProxy", gateway["spec"]["infrastructure"]["parametersRef"]["name"])["spec"]
        proxies = spec["provider"]["kubernetes"]
        if (replicas := proxies["envoyDeployment"].get("replicas", 1)) < 2:
            yield "EnvoyProxy: expected two replicas or more"
        elif proxies.get("envoyPDB", {}).get("minAvailable") not in range(1, replicas):
            yield f"EnvoyProxy: expected envoyPDB with minAvailable from 1 to {replicas - 1}"
        for policy in of_kind(objects, "BackendTrafficPolicy"):
            call, drain = policy["spec"]["timeout"]["http"]["requestTimeout"], spec["shutdown"]["drainTimeout"]
            if seconds(drain) <= seconds(call):
                yield f"EnvoyProxy: expected drainTimeout above requestTimeout {call}, got {drain}"


RULES = [the_gateway_leads_to_the_service, the_gateway_outlives_a_proxy]
