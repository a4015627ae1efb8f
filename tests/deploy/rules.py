"""What no schema says: rules of the operator, and values that must agree. Each rule yields what it finds wrong."""

import itertools
import operator
import re

import click
import ray
from ray.scripts.scripts import start

from . import gateway, policies, serving
from .manifests import (
    QUANTITY,
    cluster,
    container,
    groups,
    head,
    labels,
    named,
    of_kind,
    only,
    pod,
    quantity,
    ray_service,
    selects,
    templates,
    workers,
)

PORTS = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080, "serve": 8000, "serve-grpc": 9000}
WORKERS_PORTS = {name: PORTS[name] for name in ("metrics", "serve", "serve-grpc")}


def ports_have_their_names(objects):
    """KubeRay makes its Services from the head's, of which who names one must name all; its probe asks the workers'."""
    for group, expected, fit in ((head(objects), PORTS, operator.eq), (workers(objects), WORKERS_PORTS, operator.le)):
        found = {port.get("name"): port["containerPort"] for port in container(group)["ports"]}
        if not fit(expected.items(), found.items()):
            yield f"{container(group)['name']}: expected the ports {expected}, got {found}"
    for group in groups(objects):
        if group["rayStartParams"].get("metrics-export-port") != str(PORTS["metrics"]):
            yield f"{container(group)['name']}: expected metrics-export-port {PORTS['metrics']}"


def ray_is_the_images(objects):
    if (version := cluster(objects).get("rayVersion")) != ray.__version__:
        yield f"rayVersion: expected {ray.__version__}, as in constraints.txt and the image, got {version}"


def pods_are_scraped(objects):
    for monitor in of_kind(objects, "PodMonitor"):
        if {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} != {"metrics"}:
            yield "PodMonitor: expected the port metrics"
        if not all(selects(monitor["spec"]["selector"].get("matchLabels"), labels(one)) for one in groups(objects)):
            yield "PodMonitor: expected to select head and workers"


def ray_start_knows_its_options(objects):
    """KubeRay makes options of them, and with one that is unknown, or has no such value, no pod comes up."""
    known = {name.removeprefix("--"): option for option in start.params for name in option.opts}
    for group in groups(objects):
        for name, value in group["rayStartParams"].items():
            if name not in known:
                yield f"{container(group)['name']}: expected rayStartParams that `ray start` has, got {name}"
                continue
            try:
                known[name].type.convert(value, known[name], None)
            except click.BadParameter as error:
                yield f"{container(group)['name']}: rayStartParams.{name}: {error.message}"


def callers_see_every_pod(objects):
    """A virtual address pins a gRPC channel to one pod; without h2c a gateway speaks HTTP/1."""
    spec = ray_service(objects)["serveService"]["spec"]
    if spec.get("clusterIP") != "None" or spec.get("type", "ClusterIP") != "ClusterIP":
        yield "serveService: expected clusterIP None, and no other type"
    ports = {port["name"]: port for port in spec["ports"]}
    for name in ("serve", "serve-grpc"):
        if ports.get(name, {}).get("port") != PORTS[name] or ports[name].get("targetPort") != PORTS[name]:
            yield f"serveService: expected port {PORTS[name]} as {name}"
    if ports.get("serve-grpc", {}).get("appProtocol") != "kubernetes.io/h2c":
        yield "serve-grpc: expected appProtocol kubernetes.io/h2c"


def grpc_survives_an_upgrade(objects):
    """The incremental strategy makes an HTTP route only."""
    if ray_service(objects)["upgradeStrategy"]["type"] != "NewCluster":
        yield "upgradeStrategy: expected NewCluster"


def the_head_only_steers(objects):
    if head(objects)["rayStartParams"].get("num-cpus") != "0":
        yield 'head: expected num-cpus "0"'
    if quantity(container(head(objects))["resources"]["limits"]["memory"]) < 8 * 2**30:
        yield "head: expected at least 8Gi of memory"
    if ray_service(objects).get("excludeHeadPodFromServeSvc") is not True:
        yield "expected excludeHeadPodFromServeSvc: true"


def some_fields_stay_unset(objects):
    """Two clusters share these names during an upgrade; the operator's own are different for each."""
    if head(objects).get("headService", {}).get("metadata", {}).get("name"):
        yield "headService.metadata.name: expected unset"
    if "externalStorageNamespace" in cluster(objects).get("gcsFaultToleranceOptions", {}):
        yield "externalStorageNamespace: expected unset"
    if head(objects).get("enableIngress") or head(objects).get("serviceType", "ClusterIP") != "ClusterIP":
        yield "headGroupSpec: expected no enableIngress, and no serviceType but ClusterIP: its job API runs any code"
    for group in groups(objects):
        for field in ("readinessProbe", "livenessProbe", "startupProbe", "lifecycle", "command", "args"):
            # KubeRay's probes know of draining and of workers without a replica; SIGTERM must reach `ray start`.
            if field in container(group):
                yield f"{container(group)['name']}.{field}: expected unset"


def the_control_plane_asks_for_a_token(objects):
    if cluster(objects).get("authOptions") != {"mode": "token"}:
        yield "authOptions: expected mode token"


def the_autoscaler_is_rays_own(objects):
    options = cluster(objects).get("autoscalerOptions", {})
    if cluster(objects).get("enableInTreeAutoscaling") is not True or options.get("version") != "v2":
        yield "expected enableInTreeAutoscaling with autoscaler v2"
    if of_kind(objects, "HorizontalPodAutoscaler"):
        yield "expected no HorizontalPodAutoscaler: it would fight with Ray's"
    group = workers(objects)
    if not 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
        yield "workers: expected 1 <= minReplicas <= replicas <= maxReplicas"


def the_budget_is_of_workers(objects):
    """The API server knows of a RayCluster neither how many pods it wants nor, therefore, how many are missing."""
    least = workers(objects)["minReplicas"]
    if least < 2:
        if of_kind(objects, "PodDisruptionBudget"):
            yield "PodDisruptionBudget: expected none for a single worker, which could never be drained"
        return
    spec = named(objects, "PodDisruptionBudget", "iin-workers")["spec"]
    selector = spec["selector"]["matchLabels"]
    if not selects(selector, labels(workers(objects))) or selects(selector, labels(head(objects))):
        yield "PodDisruptionBudget: expected to select workers, and not the head"
    if spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
        yield "PodDisruptionBudget: a worker without a replica is never Ready, and must not hold up a node"
    if "maxUnavailable" in spec or spec.get("minAvailable") not in range(1, least):
        yield f"PodDisruptionBudget: expected minAvailable, a number from 1 to {least - 1}, and no maxUnavailable"


def what_is_alone_stays_where_it_is(objects):
    """Node autoscalers would move head and Valkey to save a node."""
    expected = {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    for name, template in templates(objects):
        if name != "workers" and not selects(expected, template["metadata"].get("annotations", {})):
            yield f"{name}: expected the annotations {expected}"


def an_absent_service_is_told_for_its_namespace(objects):
    for one in of_kind(objects, "PrometheusRule"):
        own = f'namespace="{one["metadata"]["namespace"]}"'
        for rule in itertools.chain.from_iterable(group["rules"] for group in one["spec"]["groups"]):
            if "absent(" in rule["expr"] and own not in rule["expr"]:
                yield f"{rule['alert']}: expected {own} in absent(), or another installation keeps it silent"


def workers_are_spread(objects):
    spread = pod(workers(objects)).get("topologySpreadConstraints", [])
    if {one["topologyKey"] for one in spread} != {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}:
        yield "workers: expected to be spread over hosts and zones"
    if not all(selects(one["labelSelector"]["matchLabels"], labels(workers(objects))) for one in spread):
        yield "topologySpreadConstraints: expected to count the workers"


def rights(name, spec):
    """What a pod may do that it need not."""
    containers = spec["containers"] + spec.get("initContainers", [])
    ports = [port for one in containers for port in one.get("ports", ())]
    if (
        any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC"))
        or any("hostPath" in volume for volume in spec.get("volumes", ()))
        or any("hostPort" in port for port in ports)
    ):
        yield f"{name}: expected nothing of the host"
    for one in containers:
        own = spec.get("securityContext", {}) | one.get("securityContext", {})
        if own.get("runAsNonRoot") is not True or own.get("runAsUser") != 1000:
            yield f"{name}.{one['name']}: expected to run as user 1000"
        if own.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name}.{one['name']}: expected seccompProfile RuntimeDefault"
        locked = own.get("allowPrivilegeEscalation") is False and own.get("capabilities") == {"drop": ["ALL"]}
        if not locked or own.get("privileged"):
            yield f"{name}.{one['name']}: expected no privileges"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{name}.{one['name']}: expected readOnlyRootFilesystem"
        if ":" not in one["image"].rpartition("/")[2] or one["image"].endswith(":latest"):
            yield f"{name}.{one['name']}: expected an image with a version, got {one['image']}"


def pods_have_no_rights(objects):
    for name, template in templates(objects):
        yield from rights(name, template["spec"])
    accounts = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")}
    for group in groups(objects):
        if pod(group).get("serviceAccountName") not in accounts:
            yield f"{container(group)['name']}: expected a service account of its own"
    if pod(workers(objects)).get("automountServiceAccountToken") is not False:
        yield "workers: expected no token of the API server"
    if of_kind(objects, "Secret"):
        yield "expected no Secret in the repository"


def pods_have_the_volumes_that_they_mount(objects):
    """KubeRay makes these pods: that the API server refuses one is told in the operator's log only."""
    for spec in (template["spec"] for name, template in templates(objects) if name in ("head", "workers")):
        volumes = {volume["name"] for volume in spec.get("volumes", ())}
        for one in spec["containers"] + spec.get("initContainers", []):
            if missing := {mount["name"] for mount in one.get("volumeMounts", ())} - volumes:
                yield f"{one['name']}: expected volumes for its mounts {sorted(missing)}"
    for group in groups(objects):
        if "/tmp" not in {mount["mountPath"] for mount in container(group).get("volumeMounts", ())}:
            yield f"{container(group)['name']}: expected a volume at /tmp, as Ray can write nowhere else"


def what_is_made_for_pods_is_named_by_one(objects):
    """A claim or settings renamed on one side only; of a generated name, kustomize adds its hash where it knows how."""
    named = set(itertools.chain.from_iterable(_names(template["spec"]) for _, template in templates(objects)))
    for kind in ("ConfigMap", "PersistentVolumeClaim"):
        for one in (one["metadata"] for one in of_kind(objects, kind)):
            if "grafana_dashboard" not in one.get("labels", {}) and (kind, one["name"]) not in named:
                yield f"{kind} {one['name']}: expected a pod that names it"


def _names(value):
    """Kind and name of each claim and of all settings that a pod has."""
    for key, one in value.items() if isinstance(value, dict) else enumerate(value):
        if key == "claimName":
            yield "PersistentVolumeClaim", one
        elif key in ("configMap", "configMapKeyRef", "configMapRef"):
            yield "ConfigMap", one["name"]
        elif isinstance(one, dict | list):
            yield from _names(one)


PULLED = ("Always", "IfNotPresent", "Never")
WORDS = {
    "effect": ("", "NoSchedule", "PreferNoSchedule", "NoExecute"),
    "imagePullPolicy": PULLED,
    "operator": ("", "DoesNotExist", "Equal", "Exists", "Gt", "In", "Lt", "NotIn"),
    "pullPolicy": PULLED,
    "whenUnsatisfiable": ("DoNotSchedule", "ScheduleAnyway"),
}


def words_are_those_of_kubernetes(objects):
    """Schemas take any text here. The API server does not; of KubeRay's pods only the operator's log tells."""
    for name, template in templates(objects):
        yield from (f"{name}: {found}" for found in _misspelt(template["spec"]))


def _misspelt(value):
    for key, one in value.items() if isinstance(value, dict) else enumerate(value):
        if key in WORDS and one not in WORDS[key]:
            yield f"{key}: expected one of {WORDS[key]}, got {one!r}"
        elif key in ("requests", "limits", "sizeLimit"):
            for amount in one.values() if isinstance(one, dict) else [one]:
                if not re.fullmatch(QUANTITY, str(amount)):
                    yield f"{key}: expected quantities such as 500m or 8Gi, got {amount!r}"
        elif isinstance(one, dict | list):
            yield from _misspelt(one)


def the_head_finds_its_memory(objects):
    """Address and password are those of the Valkey that is deployed beside it, but for an address elsewhere."""
    options = cluster(objects).get("gcsFaultToleranceOptions", {})
    host = options.get("redisAddress", "").rpartition("://")[2].partition(":")[0]
    for store in of_kind(objects, "StatefulSet"):
        service = named(objects, "Service", store["spec"]["serviceName"])
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        if not selects(service["spec"].get("selector"), labels(store["spec"])):
            yield f"Service {name}: expected to select the pods of {store['metadata']['name']}"
        if store["spec"].get("replicas", 1) != 1:
            yield f"{store['metadata']['name']}: expected one replica, as several know nothing of each other"
        label, *rest = host.split(".")
        if label != name and rest and rest[0] != namespace:
            continue  # a Redis of the operator's own
        port = only("port valkey", [one for one in service["spec"]["ports"] if one.get("name") == "valkey"])["port"]
        variables = itertools.chain.from_iterable(one.get("env", ()) for one in pod(store["spec"])["containers"])
        password = only("variable VALKEY_PASSWORD", [one for one in variables if one["name"] == "VALKEY_PASSWORD"])
        expected = {
            "redisAddress": f"redis://{host if [label, *rest[:1]] == [name, namespace] else name}:{port}",
            "redisPassword": {"valueFrom": password["valueFrom"]},
        }
        if not expected.items() <= options.items():
            yield f"gcsFaultToleranceOptions: expected {expected}, got {options}"


RULES = [
    ports_have_their_names,
    pods_are_scraped,
    ray_is_the_images,
    ray_start_knows_its_options,
    callers_see_every_pod,
    grpc_survives_an_upgrade,
    the_head_only_steers,
    some_fields_stay_unset,
    the_control_plane_asks_for_a_token,
    the_autoscaler_is_rays_own,
    the_budget_is_of_workers,
    what_is_alone_stays_where_it_is,
    an_absent_service_is_told_for_its_namespace,
    workers_are_spread,
    pods_have_no_rights,
    pods_have_the_volumes_that_they_mount,
    what_is_made_for_pods_is_named_by_one,
    words_are_those_of_kubernetes,
    the_head_finds_its_memory,
    *serving.RULES,
    *policies.RULES,
    *gateway.RULES,
]
