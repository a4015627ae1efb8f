"""What the Serve configuration, the settings of Ray and the sizes of pods must agree on."""

import functools
import itertools
import math
import re
from pathlib import Path, PurePosixPath

import ray
from iin_service.app import BuildArguments, build
from iin_service.environment import serve_settings
from iin_service.items import Limits
from iin_service.replica import DEPLOYMENT

from .gateway import SERVICES
from .manifests import (
    application,
    container,
    deployment,
    groups,
    head,
    of_kind,
    pod,
    quantity,
    ray_service,
    serve_config,
    settings,
    workers,
)

SERVE = {
    "http_options": {"host": "0.0.0.0", "port": 8000},
    "grpc_options": {"port": 9000, "enable_reflection": False},
}
# A stopping replica must wait until each HAProxy knows, and logs go where `kubectl logs` reads.
SETTINGS = {
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "30",
    "RAY_SERVE_LOG_TO_STDERR": "1",
    "RAY_LOG_TO_STDERR": "1",  # without it a worker's stderr is a file of the session, whatever Serve's setting
    "RAY_worker_niceness": "0",
}
READERS = ("_common", "_private", "autoscaler", "dashboard", "scripts", "serve")  # parts of Ray that run in a cluster
GIB = 2**30


def serve_listens_as_it_is_asked(objects):
    """KubeRay's probe asks the proxy of each worker; reflection would tell the API to whoever reaches the port."""
    config = serve_config(objects)
    if config.get("proxy_location") != "EveryNode":
        yield "serve.yaml: expected proxy_location EveryNode"
    for section, expected in SERVE.items():
        if not expected.items() <= config[section].items():
            yield f"serve.yaml: expected {expected} in {section}, got {config[section]}"


def serve_finds_the_service(objects):
    """Names that Ray looks up when it deploys."""
    config = serve_config(objects)
    found = config["grpc_options"].get("grpc_servicer_functions", [])
    expected = [f"{module}.add_{name.rpartition('.')[2]}Servicer_to_server" for name, module in SERVICES.items()]
    if sorted(found) != sorted(expected):
        yield f"serve.yaml: expected grpc_servicer_functions {expected}, got {found}"
    named = {"import_path": application(config)["import_path"], "name": deployment(config)["name"]}
    if named != (right := {"import_path": f"{build.__module__}:{build.__name__}", "name": DEPLOYMENT}):
        yield f"serve.yaml: expected {right}, got {named}"


def replicas_get_what_ray_reserves(objects):
    """Ray counts its own options; the builder's arguments size what a replica does."""
    args, options = application(serve_config(objects))["args"], deployment(serve_config(objects))["ray_actor_options"]
    arguments = BuildArguments(**args)
    if (arguments.cpus, arguments.gpus) != (options["num_cpus"], options["num_gpus"]):
        yield f"serve.yaml: expected args as num_cpus and num_gpus of {options}, got {args}"


def the_engine_turns_calls_away_before_serve_does(objects):
    """Serve would not count them, and let others wait where nothing sees them."""
    if (most := deployment(serve_config(objects))["max_ongoing_requests"]) <= Limits.max_queued_items:
        yield f"max_ongoing_requests: expected above the engine's {Limits.max_queued_items}, got {most}"


def head_and_workers_have_the_measured_settings(objects):
    """Those of the service but for SETTINGS. Ray takes no notice of a variable that it does not know."""
    given = settings(objects)
    expected = serve_settings(haproxy=given.get("RAY_SERVE_ENABLE_HA_PROXY") != "0") | SETTINGS
    for name, value in given.items():
        if value != value.strip():  # the carriage return of a file that was saved elsewhere
            yield f"iin-settings: expected {name} without white space around it, got {value!r}"
    for name, value in expected.items():
        if given.get(name) != value:
            yield f"iin-settings: expected {name}={value}, got {given.get(name)}"
    for name in sorted(given.keys() - expected.keys()):
        if not _ray_reads(name):
            yield f"iin-settings: expected variables that Ray reads, got {name}"
    if "RAY_SERVE_THROUGHPUT_OPTIMIZED" in given:
        yield "iin-settings: expected no RAY_SERVE_THROUGHPUT_OPTIMIZED, which overrides proxy_location and more"
    if container(head(objects)).get("envFrom") != container(workers(objects))["envFrom"]:
        yield "ray-head: expected the same envFrom as of the workers"
    for group in groups(objects):
        if own := [one["name"] for one in container(group).get("env", ()) if one["name"].startswith("RAY_")]:
            yield f"{container(group)['name']}: expected {own} in iin-settings, which head and workers share"


@functools.cache
def _ray_reads(name):
    """Whether a variable is named in Ray: as a whole, or without RAY_ as one of its core's."""
    package, core = Path(ray.__file__).parent, name.removeprefix("RAY_").encode()
    sources = [*(path for part in READERS for path in (package / part).rglob("*.py")), package / "_raylet.so"]
    words = re.compile(rb"\b(RAY_)?" + re.escape(core) + rb"\b")
    return any(core in text and words.search(text) for text in (path.read_bytes() for path in sources))


def calls_end_before_pods(objects):
    """0 < longest call < replica's shutdown < drain of the node < grace of the pod < deletion of an old cluster."""
    config, environment = serve_config(objects), settings(objects)
    steps = [
        ("0", 0),  # which Ray takes for no bound
        ("request_timeout_s", config["grpc_options"]["request_timeout_s"]),
        ("graceful_shutdown_timeout_s", deployment(config)["graceful_shutdown_timeout_s"]),
        ("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", float(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])),
        ("terminationGracePeriodSeconds", min(pod(one)["terminationGracePeriodSeconds"] for one in groups(objects))),
        ("rayClusterDeletionDelaySeconds", ray_service(objects)["rayClusterDeletionDelaySeconds"]),
    ]
    for (name, less), (next_name, more) in itertools.pairwise(steps):
        if not less < more:
            yield f"expected {name} < {next_name}, got {less} and {more}"


def _slots(objects):
    """Replicas that a worker pod holds, as Ray counts."""
    one = deployment(serve_config(objects))
    options = one["ray_actor_options"]
    limits = container(workers(objects))["resources"]["limits"]
    has = {
        "num_cpus": float(workers(objects)["rayStartParams"]["num-cpus"]),
        "num_gpus": float(limits.get("nvidia.com/gpu", 0)),
        "memory": quantity(limits["memory"]),
    }
    slots = min(int(has[key] / options[key]) for key in has if options[key])
    return min(slots, one.get("max_replicas_per_node", slots))


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
    for group in groups(objects):
        requests, limits = (container(group)["resources"][name] for name in ("requests", "limits"))
        if quantity(requests["memory"]) != quantity(limits["memory"]):
            yield f"{container(group)['name']}: expected as much memory requested as allowed"
        if more := [key for key in requests.keys() & limits if quantity(requests[key]) > quantity(limits[key])]:
            yield f"{container(group)['name']}: expected no request above its limit, got {sorted(more)}"


def no_pod_holds_all_replicas(objects):
    """Serve scales down one pod after the other; with all on one, no other is Ready, and it can never be evicted."""
    least, slots = deployment(serve_config(objects))["autoscaling_config"]["min_replicas"], _slots(objects)
    if of_kind(objects, "PodDisruptionBudget") and least <= slots:
        yield f"min_replicas: expected more than the {slots} replicas of a pod, got {least}"


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
    elif "emptyDir" in volumes[mounts[0]["name"]] and not any(
        mount["name"] == mounts[0]["name"] and mount["mountPath"] == mounts[0]["mountPath"]
        for one in pod(workers(objects)).get("initContainers", ())
        for mount in one.get("volumeMounts", ())
    ):
        yield f"workers: expected an init container with the same {mounts[0]}, to fill it"
    for volume in volumes.values():
        if "image" in volume and not re.search("@sha256:[0-9a-f]{64}$", volume["image"]["reference"]):
            yield f"{volume['name']}: expected an image by digest, got {volume['image']['reference']}"
    if any("runtime_env" in one for one in (application(config), deployment(config)["ray_actor_options"])):
        yield "expected no runtime_env"


def gpus_are_asked_for_together(objects):
    """The Serve configuration, the limit, the toleration and the image: all of them or none."""
    spec, one = pod(workers(objects)), container(workers(objects))
    signs = {
        "num_gpus": deployment(serve_config(objects))["ray_actor_options"]["num_gpus"] > 0,
        "nvidia.com/gpu": "nvidia.com/gpu" in one["resources"]["limits"],
        "toleration": any(taint.get("key") == "nvidia.com/gpu" for taint in spec.get("tolerations", ())),
        "an image other than the head's": one["image"] != container(head(objects))["image"],
    }
    if len(set(signs.values())) > 1:
        yield f"workers: expected all of these or none: {signs}"
    steers, serves = (container(group)["image"] for group in groups(objects))
    if (steers[-4:], serves[-4:]) == ("-cpu", "-gpu") and steers[:-4] != serves[:-4]:
        yield f"workers: expected the head's version, {steers}, got {serves}"


def shared_gpus_hold_their_replicas(objects):
    """Ray only counts fractions. A replica holds two bundles while one is exchanged, and CUDA takes its own share."""
    config = serve_config(objects)
    share = deployment(config)["ray_actor_options"]["num_gpus"]
    if share % 1 == 0:
        return
    cap = application(config)["args"].get("gpu_memory_bytes")
    if cap is None:
        yield f"args: expected gpu_memory_bytes where replicas share a GPU (num_gpus {share})"
        return
    # The label of NVIDIA's GPU feature discovery, in MiB: pods that ask for it get no smaller GPU.
    stated = pod(workers(objects)).get("nodeSelector", {}).get("nvidia.com/gpu.memory")
    needed = int(1 / share) * (2 * cap + GIB)
    if stated is not None and needed > int(stated) * 2**20:
        yield f"gpu_memory_bytes: expected {int(1 / share)} replicas in {stated} MiB, but they may take {needed} bytes"


RULES = [
    serve_listens_as_it_is_asked,
    serve_finds_the_service,
    replicas_get_what_ray_reserves,
    the_engine_turns_calls_away_before_serve_does,
    head_and_workers_have_the_measured_settings,
    calls_end_before_pods,
    replicas_fit_the_workers,
    pods_ask_for_what_replicas_use,
    no_pod_holds_all_replicas,
    the_bundle_is_mounted,
    gpus_are_asked_for_together,
    shared_gpus_hold_their_replicas,
]
