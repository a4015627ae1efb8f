"""What no schema says: rules of the operator, and values that must agree. Each rule yields what it finds wrong."""

import itertools
import math
import operator
from pathlib import PurePosixPath

from ray.scripts.scripts import start

from .manifests import (
    cluster,
    container,
    deployment,
    head,
    named,
    of_kind,
    only,
    pod,
    quantity,
    ray_service,
    seconds,
    selects,
    serve_config,
    settings,
    templates,
    workers,
)
from .policies import only_known_peers

PORTS = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080, "serve": 8000, "serve-grpc": 9000}
WORKERS_PORTS = {name: PORTS[name] for name in ("metrics", "serve", "serve-grpc")}
SERVICES = {"iin_api.v1.InterpretationService", "inference.GRPCInferenceService", "grpc.health.v1.Health"}
GIB = 2**30


def _labels(group):
    return group["template"]["metadata"]["labels"]


def ports_have_their_names(objects):
    """KubeRay makes its Services from the head's, of which who names one must name all; its probe asks the workers'."""
    for group, expected, fit in ((head(objects), PORTS, operator.eq), (workers(objects), WORKERS_PORTS, operator.le)):
        found = {port.get("name"): port["containerPort"] for port in container(group)["ports"]}
        if not fit(expected.items(), found.items()):
            yield f"{container(group)['name']}: expected the ports {expected}, got {found}"
    for options, name in (("http_options", "serve"), ("grpc_options", "serve-grpc")):
        if (port := serve_config(objects)[options]["port"]) != PORTS[name]:
            yield f"serve.yaml: expected port {PORTS[name]} in {options}, got {port}"


def ray_start_knows_its_options(objects):
    """KubeRay makes options of them, and with one that is unknown no pod comes up."""
    known = {name.removeprefix("--") for option in start.params for name in option.opts}
    for group in _groups(objects):
        if unknown := group["rayStartParams"].keys() - known:
            yield f"{container(group)['name']}: expected rayStartParams that `ray start` has, got {sorted(unknown)}"


def callers_see_every_pod(objects):
    """A virtual address pins a gRPC channel to one pod; without h2c a gateway speaks HTTP/1."""
    spec = ray_service(objects)["serveService"]["spec"]
    if spec.get("clusterIP") != "None":
        yield "serveService: expected clusterIP None"
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
    if quantity(container(head(objects))["resources"]["limits"]["memory"]) < 8 * GIB:
        yield "head: expected at least 8Gi of memory"
    if ray_service(objects).get("excludeHeadPodFromServeSvc") is not True:
        yield "expected excludeHeadPodFromServeSvc: true"


def some_fields_stay_unset(objects):
    """Two clusters share these names during an upgrade; the operator's own are different for each."""
    if head(objects).get("headService", {}).get("metadata", {}).get("name"):
        yield "headService.metadata.name: expected unset"
    if "externalStorageNamespace" in cluster(objects).get("gcsFaultToleranceOptions", {}):
        yield "externalStorageNamespace: expected unset"
    for group in _groups(objects):
        for field in ("readinessProbe", "livenessProbe", "lifecycle", "command", "args"):
            if field in container(group):  # KubeRay's probes know of draining, and SIGTERM must reach `ray start`
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


def _slots(objects):
    """Replicas that a worker pod holds, as Ray counts."""
    options = deployment(serve_config(objects))["ray_actor_options"]
    limits = container(workers(objects))["resources"]["limits"]
    has = {
        "num_cpus": float(workers(objects)["rayStartParams"]["num-cpus"]),
        "num_gpus": float(limits.get("nvidia.com/gpu", 0)),
        "memory": quantity(limits["memory"]),
    }
    return min(int(has[key] / options[key]) for key in has if options[key])


def replicas_fit_the_workers(objects):
    """Where the surge of an update does not fit, the update waits for ever."""
    one = deployment(serve_config(objects))
    scaling, group, slots = one["autoscaling_config"], workers(objects), _slots(objects)
    most = math.ceil(scaling["max_replicas"] * (1 + one["max_surge_percent"] / 100))
    if most > slots * group["maxReplicas"]:
        yield f"expected room for {most} replicas, got {group['maxReplicas']} pods of {slots}"
    if scaling["min_replicas"] > slots * group["minReplicas"]:
        yield f"expected room for {scaling['min_replicas']} replicas, got {group['minReplicas']} pods of {slots}"


def pods_ask_for_what_replicas_use(objects):
    """Half a core and a GiB of a pod are for HAProxy, raylet and agents."""
    options, slots = deployment(serve_config(objects))["ray_actor_options"], _slots(objects)
    resources = container(workers(objects))["resources"]
    if quantity(resources["requests"]["cpu"]) < slots * options["num_cpus"] + 0.5:
        yield f"workers: expected requests of more than the {slots * options['num_cpus']} cores of {slots} replicas"
    if quantity(resources["limits"]["memory"]) < slots * options["memory"] + GIB:
        yield f"workers: expected memory for {slots} replicas and a GiB"
    for group in _groups(objects):
        requests, limits = (container(group)["resources"][name] for name in ("requests", "limits"))
        if quantity(requests["memory"]) != quantity(limits["memory"]):
            yield f"{container(group)['name']}: expected as much memory requested as allowed"
        if more := [key for key in requests.keys() & limits if quantity(requests[key]) > quantity(limits[key])]:
            yield f"{container(group)['name']}: expected no request above its limit, got {sorted(more)}"


def calls_end_before_pods(objects):
    """Longest call < replica's shutdown < drain of the node < grace of the pod < deletion of an old cluster."""
    config, environment = serve_config(objects), settings(objects)
    steps = [
        ("request_timeout_s", config["grpc_options"]["request_timeout_s"]),
        ("graceful_shutdown_timeout_s", deployment(config)["graceful_shutdown_timeout_s"]),
        ("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", float(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])),
        ("terminationGracePeriodSeconds", min(pod(one)["terminationGracePeriodSeconds"] for one in _groups(objects))),
        ("rayClusterDeletionDelaySeconds", ray_service(objects)["rayClusterDeletionDelaySeconds"]),
    ]
    for (name, less), (next_name, more) in itertools.pairwise(steps):
        if not less < more:
            yield f"expected {name} < {next_name}, got {less} and {more}"


def _groups(objects):
    return head(objects), workers(objects)


def the_budget_is_of_workers(objects):
    """The API server knows of a RayCluster neither how many pods it wants nor, therefore, how many are missing."""
    least = workers(objects)["minReplicas"]
    if least < 2:
        if of_kind(objects, "PodDisruptionBudget"):
            yield "PodDisruptionBudget: expected none for a single worker, which could never be drained"
        return
    spec = named(objects, "PodDisruptionBudget", "iin-workers")["spec"]
    selector = spec["selector"]["matchLabels"]
    if not selects(selector, _labels(workers(objects))) or selects(selector, _labels(head(objects))):
        yield "PodDisruptionBudget: expected to select workers, and not the head"
    if spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
        yield "PodDisruptionBudget: a worker without a replica is never Ready, and must not hold up a node"
    if "maxUnavailable" in spec or spec.get("minAvailable") not in range(1, least):
        yield f"PodDisruptionBudget: expected minAvailable, a number from 1 to {least - 1}, and no maxUnavailable"


def no_pod_holds_all_replicas(objects):
    """Serve scales down one pod after the other; with all on one, no other is Ready, and it can never be evicted."""
    least, slots = deployment(serve_config(objects))["autoscaling_config"]["min_replicas"], _slots(objects)
    if of_kind(objects, "PodDisruptionBudget") and least <= slots:
        yield f"min_replicas: expected more than the {slots} replicas of a pod, got {least}"


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
    if not all(selects(one["labelSelector"]["matchLabels"], _labels(workers(objects))) for one in spread):
        yield "topologySpreadConstraints: expected to count the workers"


def rights(name, spec):
    """What a pod may do that it need not."""
    context = spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or context.get("runAsUser") != 1000:
        yield f"{name}: expected to run as user 1000"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield f"{name}: expected seccompProfile RuntimeDefault"
    if any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")):
        yield f"{name}: expected nothing of the host"
    for one in spec["containers"] + spec.get("initContainers", []):
        own = one.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name}.{one['name']}: expected no privileges"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{name}.{one['name']}: expected readOnlyRootFilesystem"
        if ":" not in one["image"].rpartition("/")[2] or one["image"].endswith(":latest"):
            yield f"{name}.{one['name']}: expected an image with a version, got {one['image']}"


def pods_have_no_rights(objects):
    for name, template in templates(objects):
        yield from rights(name, template["spec"])
    accounts = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")}
    for group in _groups(objects):
        if pod(group).get("serviceAccountName") not in accounts:
            yield f"{container(group)['name']}: expected a service account of its own"
    if pod(workers(objects)).get("automountServiceAccountToken") is not False:
        yield "workers: expected no token of the API server"
    if of_kind(objects, "Secret"):
        yield "expected no Secret in the repository"


def the_bundle_is_mounted(objects):
    """Replicas read `bundle` of user_config below a volume; never from a URL in runtime_env."""
    config = serve_config(objects)
    path = PurePosixPath(str(deployment(config)["user_config"]["bundle"]))
    mounts = [
        mount
        for mount in container(workers(objects))["volumeMounts"]
        if path.is_relative_to(PurePosixPath(mount["mountPath"]))
    ]
    volumes = {volume["name"]: volume for volume in pod(workers(objects))["volumes"]}
    if len(mounts) != 1 or mounts[0]["name"] not in volumes:
        yield f"workers: expected one volume that holds {path}, got {mounts}"
    elif mounts[0].get("readOnly") is not True:
        yield f"workers: expected {path} to be read only"
    for volume in volumes.values():
        if "image" in volume and "@sha256:" not in volume["image"]["reference"]:
            yield f"{volume['name']}: expected an image by digest, got {volume['image']['reference']}"
    if any("runtime_env" in one for one in (config["applications"][0], deployment(config)["ray_actor_options"])):
        yield "expected no runtime_env"


def pods_have_the_volumes_that_they_mount(objects):
    """KubeRay makes these pods: that the API server refuses one is told in the operator's log only."""
    for spec in (template["spec"] for name, template in templates(objects) if name in ("head", "workers")):
        volumes = {volume["name"] for volume in spec.get("volumes", ())}
        for one in spec["containers"] + spec.get("initContainers", []):
            if missing := {mount["name"] for mount in one.get("volumeMounts", ())} - volumes:
                yield f"{one['name']}: expected volumes for its mounts {sorted(missing)}"


def the_head_finds_its_memory(objects):
    """Address and password are those of the Valkey that is deployed beside it, but for an address elsewhere."""
    options = cluster(objects).get("gcsFaultToleranceOptions", {})
    host = options.get("redisAddress", "").rpartition("://")[2].partition(":")[0]
    for store in of_kind(objects, "StatefulSet"):
        service = named(objects, "Service", store["spec"]["serviceName"])
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
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


def gpus_are_asked_for_together(objects):
    """The Serve configuration, the limit, the toleration and the image: all of them or none."""
    spec, one = pod(workers(objects)), container(workers(objects))
    signs = {
        "num_gpus": deployment(serve_config(objects))["ray_actor_options"]["num_gpus"] > 0,
        "nvidia.com/gpu": "nvidia.com/gpu" in one["resources"]["limits"],
        "toleration": any(taint.get("key") == "nvidia.com/gpu" for taint in spec.get("tolerations", ())),
        "image": one["image"].endswith("-gpu"),
        "group": workers(objects)["groupName"] == "gpu",
    }
    if len(set(signs.values())) > 1:
        yield f"workers: expected all of these or none: {signs}"


def shared_gpus_hold_their_replicas(objects):
    """Ray only counts fractions. A replica holds two bundles while one is exchanged, and CUDA takes its own share."""
    config = serve_config(objects)
    share = deployment(config)["ray_actor_options"]["num_gpus"]
    if share % 1 == 0:
        return
    cap = config["applications"][0]["args"].get("gpu_memory_bytes")
    if cap is None:
        yield f"args: expected gpu_memory_bytes where replicas share a GPU (num_gpus {share})"
        return
    # The label of NVIDIA's GPU feature discovery, in MiB: pods that ask for it get no smaller GPU.
    stated = pod(workers(objects)).get("nodeSelector", {}).get("nvidia.com/gpu.memory")
    needed = int(1 / share) * (2 * cap + GIB)
    if stated is not None and needed > int(stated) * 2**20:
        yield f"gpu_memory_bytes: expected {int(1 / share)} replicas in {stated} MiB, but they may take {needed} bytes"


def the_gateway_leads_to_the_service(objects):
    """Where there is one: TLS, a key for every call, the port's own services only, and this Service behind it."""
    for route in of_kind(objects, "GRPCRoute"):
        service = ray_service(objects)["serveService"]["metadata"]["name"]
        rule = only("rule of the GRPCRoute", route["spec"]["rules"])
        backends = [(one["name"], one["port"]) for one in rule["backendRefs"]]
        if backends != [(service, 9000)]:
            yield f"GRPCRoute: expected {service}:9000, got {backends}"
        served = {match["method"].get("service") for match in rule["matches"]}
        if served != SERVICES:
            yield f"GRPCRoute: expected the services of the port, got {served}"
        gateway = only("Gateway", of_kind(objects, "Gateway"))
        listeners = [(gateway["metadata"]["name"], one["name"]) for one in gateway["spec"]["listeners"]]
        whole = (gateway["metadata"]["name"], None)
        if not {(one["name"], one.get("sectionName")) for one in route["spec"]["parentRefs"]} <= {whole, *listeners}:
            yield f"GRPCRoute: expected parentRefs of {listeners}, got {route['spec']['parentRefs']}"
        for listener in gateway["spec"]["listeners"]:
            if listener["protocol"] != "HTTPS" or not listener.get("tls", {}).get("certificateRefs"):
                yield f"Gateway: expected TLS on {listener['name']}"
            if listener["hostname"] not in route["spec"]["hostnames"]:
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


RULES = [
    ports_have_their_names,
    ray_start_knows_its_options,
    callers_see_every_pod,
    grpc_survives_an_upgrade,
    the_head_only_steers,
    some_fields_stay_unset,
    the_control_plane_asks_for_a_token,
    the_autoscaler_is_rays_own,
    replicas_fit_the_workers,
    pods_ask_for_what_replicas_use,
    calls_end_before_pods,
    the_budget_is_of_workers,
    no_pod_holds_all_replicas,
    what_is_alone_stays_where_it_is,
    an_absent_service_is_told_for_its_namespace,
    workers_are_spread,
    only_known_peers,
    pods_have_no_rights,
    the_bundle_is_mounted,
    pods_have_the_volumes_that_they_mount,
    the_head_finds_its_memory,
    gpus_are_asked_for_together,
    shared_gpus_hold_their_replicas,
    the_gateway_leads_to_the_service,
    the_gateway_outlives_a_proxy,
]
