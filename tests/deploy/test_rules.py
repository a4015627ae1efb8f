"""Each rule finds its planted mistakes, whatever values an operator chose; test_check.py has that all overlays hold."""

import hashlib
import os
import shutil
import subprocess
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import yaml

from . import gateway, policies, rules, serving
from .manifests import (
    cluster,
    container,
    deployment,
    groups,
    head,
    named,
    of_kind,
    only,
    pod,
    quantity,
    ray_service,
    render,
    seconds,
    serve_config,
    settings,
    workers,
)
from .serving import GIB


def serve(**values):
    """A mistake in the Serve configuration's one deployment."""

    def plant(objects):
        config = serve_config(objects)
        for path, value in values.items():
            *way, last = path.split("__")
            place = deployment(config)
            for step in way:
                place = place[step]
            place[last] = value
        ray_service(objects)["serveConfigV2"] = yaml.safe_dump(config)

    return plant


def anywhere_in_serve(old, new):
    return lambda o: ray_service(o).update(serveConfigV2=ray_service(o)["serveConfigV2"].replace(old, new))


def setting(**variables):
    return lambda o: settings(o).update(variables)


def shared_gpu(cap, mebibytes):
    """Two replicas on a GPU of this much memory."""

    def plant(objects):
        config = serve_config(objects)
        config["applications"][0]["args"].update(gpus=0.5, gpu_memory_bytes=cap)
        deployment(config)["ray_actor_options"].update(num_gpus=0.5)
        ray_service(objects)["serveConfigV2"] = yaml.safe_dump(config)
        pod(workers(objects)).update(nodeSelector={"nvidia.com/gpu.memory": str(mebibytes)})

    return plant


def large_pods(objects):
    """Pods that hold all replicas there are."""
    workers(objects)["rayStartParams"]["num-cpus"] = "1000"
    container(workers(objects))["resources"]["limits"]["memory"] = "100000Gi"


def tight_pods(objects):
    """Pods with memory for their replicas and nothing else."""
    size = deployment(serve_config(objects))["ray_actor_options"]["memory"]
    slots = int(workers(objects)["rayStartParams"]["num-cpus"])
    for resources in container(workers(objects))["resources"].values():
        resources["memory"] = str(slots * size)


def policy(objects, name="iin"):
    return named(objects, "NetworkPolicy", name)["spec"]


def anybody(port, **more):
    """A rule that lets all pods of the cluster in."""
    return {"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": port, **more}]}


def proxies(objects):
    return first(objects, "EnvoyProxy")["provider"]["kubernetes"]


def first(objects, kind):
    return of_kind(objects, kind)[0]["spec"]


def redis(address):
    """Another address of the head's memory."""
    return lambda o: cluster(o)["gcsFaultToleranceOptions"].update(redisAddress=address)


def valkey_behind_others(objects):
    """A container, a variable and a port before those that count."""
    pod(first(objects, "StatefulSet"))["containers"].insert(0, {"name": "exporter"})
    pod(first(objects, "StatefulSet"))["containers"][1]["env"].insert(0, {"name": "TZ", "value": "UTC"})
    named(objects, "Service", "iin-valkey")["spec"]["ports"].insert(0, {"name": "metrics", "port": 9121})


def each(changes):
    """A test for each rule and change."""
    return [pytest.param(rule, one, id=rule.__name__) for rule in changes for one in changes[rule]]


MISTAKES = {
    rules.ports_have_their_names: [
        lambda o: container(head(o))["ports"].pop(),
        lambda o: container(head(o))["ports"][-1].update(name="grpc"),
        lambda o: container(head(o))["ports"].append({"name": "a", "containerPort": 1}),
        lambda o: container(workers(o))["ports"][1].update(containerPort=8001),
        lambda o: workers(o)["rayStartParams"].update({"metrics-export-port": "8081"}),
    ],
    serving.serve_listens_as_it_is_asked: [
        anywhere_in_serve("port: 9000", "port: 9001"),
        anywhere_in_serve("host: 0.0.0.0", "host: 127.0.0.1"),
        anywhere_in_serve("location: EveryNode", "location: HeadOnly"),
        anywhere_in_serve("  enable_reflection: false", "  #"),
    ],
    serving.serve_finds_the_service: [
        anywhere_in_serve("HealthServicer_to_server", "Health_to_server"),
        anywhere_in_serve("    - grpc_health", "    # - grpc_health"),
        anywhere_in_serve("app:build", "app:main"),
        serve(name="Interpreter"),
    ],
    rules.pods_are_scraped: [
        lambda o: first(o, "PodMonitor")["podMetricsEndpoints"][0].update(port="serve"),
        lambda o: first(o, "PodMonitor")["selector"].update(matchLabels={"app": "iin"}),
    ],
    rules.ray_is_the_images: [lambda o: cluster(o).update(rayVersion="2.9.0")],
    rules.ray_start_knows_its_options: [
        lambda o: workers(o)["rayStartParams"].update({"num-cpu": "2"}),
        lambda o: workers(o)["rayStartParams"].update({"num-cpus": "2.5"}),
        lambda o: head(o)["rayStartParams"].update({"object-store-memory": "100Mi"}),
    ],
    rules.callers_see_every_pod: [
        lambda o: ray_service(o)["serveService"]["spec"].pop("clusterIP"),
        lambda o: ray_service(o)["serveService"]["spec"].update(type="LoadBalancer"),
        lambda o: ray_service(o)["serveService"]["spec"]["ports"][0].pop("appProtocol"),
        lambda o: ray_service(o)["serveService"]["spec"]["ports"].pop(1),
    ],
    rules.grpc_survives_an_upgrade: [
        lambda o: ray_service(o)["upgradeStrategy"].update(type="NewClusterWithIncrementalUpgrade")
    ],
    rules.the_head_only_steers: [
        lambda o: head(o)["rayStartParams"].update({"num-cpus": "2"}),
        lambda o: container(head(o))["resources"]["limits"].update(memory="2Gi"),
        lambda o: ray_service(o).pop("excludeHeadPodFromServeSvc"),
    ],
    rules.some_fields_stay_unset: [
        lambda o: head(o).update(headService={"metadata": {"name": "head"}}),
        lambda o: cluster(o)["gcsFaultToleranceOptions"].update(externalStorageNamespace="iin"),
        lambda o: head(o).update(serviceType="LoadBalancer"),
        lambda o: head(o).update(enableIngress=True),
        lambda o: container(workers(o)).update(lifecycle={"preStop": {}}),
        lambda o: container(workers(o)).update(readinessProbe={"grpc": {"port": 9000}}),
        lambda o: container(workers(o)).update(startupProbe={"grpc": {"port": 9000}}),
    ],
    rules.the_control_plane_asks_for_a_token: [lambda o: cluster(o).pop("authOptions")],
    rules.the_autoscaler_is_rays_own: [
        lambda o: cluster(o)["autoscalerOptions"].update(version="v1"),
        lambda o: workers(o).update(minReplicas=0),
        lambda o: o.append({"kind": "HorizontalPodAutoscaler"}),
    ],
    serving.head_and_workers_have_the_measured_settings: [
        setting(RAY_SERVE_GRPC_MAX_MESSAGE_SIZE="2147483647"),
        setting(RAY_SERVE_ENABLE_HA_PROXY="false"),
        setting(RAY_SERVE_HAPROXY_NB_THREADS="2"),
        setting(RAY_SERVE_THROUGHPUT_OPTIMIZED="1"),
        setting(RAY_USAGE_STATS_ENABLED="0\r"),
        lambda o: container(head(o)).pop("envFrom"),
        lambda o: container(workers(o)).update(env=[{"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "0"}]),
    ],
    serving.replicas_get_what_ray_reserves: [serve(ray_actor_options__num_cpus=2)],
    serving.the_engine_turns_calls_away_before_serve_does: [serve(max_ongoing_requests=4096)],
    serving.replicas_fit_the_workers: [
        serve(autoscaling_config__max_replicas=1000),
        lambda o: workers(o).update(minReplicas=1),
        serve(max_surge_percent=100),
        serve(max_replicas_per_node=1),
        serve(ray_actor_options__memory=1000 * GIB),
        lambda o: workers(o).update(maxReplicas=workers(o)["minReplicas"]),
    ],
    serving.pods_ask_for_what_replicas_use: [
        lambda o: container(workers(o))["resources"]["requests"].update(cpu="1"),
        lambda o: container(workers(o))["resources"]["limits"].update(memory="8Gi"),
        tight_pods,
        lambda o: container(head(o))["resources"]["limits"].update(cpu="1"),
    ],
    serving.calls_end_before_pods: [
        serve(graceful_shutdown_timeout_s=20),
        anywhere_in_serve("request_timeout_s: 60", "request_timeout_s: 0"),
        lambda o: settings(o).update(RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="30"),
        lambda o: pod(workers(o)).update(terminationGracePeriodSeconds=30),
        lambda o: ray_service(o).update(rayClusterDeletionDelaySeconds=60),
    ],
    rules.the_budget_is_of_workers: [
        lambda o: first(o, "PodDisruptionBudget")["selector"]["matchLabels"].pop("app.kubernetes.io/component"),
        lambda o: first(o, "PodDisruptionBudget").pop("unhealthyPodEvictionPolicy"),
        lambda o: first(o, "PodDisruptionBudget").update(minAvailable="50%"),
        lambda o: first(o, "PodDisruptionBudget").update(minAvailable=workers(o)["minReplicas"]),
        lambda o: first(o, "PodDisruptionBudget").update(maxUnavailable=1),
        lambda o: workers(o).update(minReplicas=1),
    ],
    rules.an_absent_service_is_told_for_its_namespace: [
        lambda o: of_kind(o, "PrometheusRule")[0]["metadata"].update(namespace="other")
    ],
    rules.workers_are_spread: [
        lambda o: pod(workers(o)).pop("topologySpreadConstraints"),
        lambda o: pod(workers(o))["topologySpreadConstraints"][0]["labelSelector"].update(matchLabels={"app": "iin"}),
    ],
    serving.no_pod_holds_all_replicas: [
        serve(autoscaling_config__min_replicas=2),
        large_pods,
    ],
    rules.what_is_alone_stays_where_it_is: [
        lambda o: head(o)["template"]["metadata"].pop("annotations"),
        lambda o: first(o, "StatefulSet")["template"]["metadata"]["annotations"].pop("karpenter.sh/do-not-disrupt"),
    ],
    policies.only_known_peers: [
        lambda o: policy(o)["ingress"][0].update(ports=[{"port": 9000}]),
        lambda o: policy(o)["ingress"][1].pop("ports"),
        lambda o: policy(o)["ingress"][1].pop("from"),
        lambda o: policy(o)["ingress"][1]["ports"].append({"port": 8265}),
        lambda o: policy(o)["ingress"].pop(2),
        lambda o: policy(o)["ingress"][2]["from"][0].pop("namespaceSelector"),
        lambda o: policy(o)["ingress"].append(anybody(9000)),
        lambda o: policy(o)["ingress"].append(anybody(8000, endPort=65535)),
        lambda o: policy(o)["ingress"][1].update({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}),
        lambda o: policy(o)["egress"].append({}),
        lambda o: policy(o).pop("policyTypes"),
        lambda o: policy(o)["podSelector"].update(matchLabels={"app": "iin"}),
        lambda o: policy(o, "iin-head").update(podSelector={}),
        lambda o: policy(o, "iin-gateway")["podSelector"].update(matchLabels={"app": "iin"}),
        lambda o: policy(o, "iin-monitoring")["ingress"][0].pop("ports"),
        lambda o: o.remove(named(o, "NetworkPolicy", "iin")),
        lambda o: o.remove(named(o, "NetworkPolicy", "iin-gateway")),
        lambda o: o.append({"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"BUNDLE_URL": "https://a.b/c"}}),
        lambda o: o.append({"kind": "NetworkPolicy", "metadata": {"name": "mine"}, "spec": {"podSelector": {}}}),
        lambda o: workers(o)["template"]["metadata"]["labels"].pop("app.kubernetes.io/component"),
    ],
    rules.pods_have_no_rights: [
        lambda o: pod(workers(o))["securityContext"].update(runAsUser=0),
        lambda o: pod(head(o))["securityContext"].pop("seccompProfile"),
        lambda o: pod(head(o)).update(initContainers=[{"name": "a", "image": "a:1"}]),
        lambda o: container(head(o))["securityContext"].pop("capabilities"),
        lambda o: container(head(o))["securityContext"].pop("readOnlyRootFilesystem"),
        lambda o: pod(head(o)).pop("serviceAccountName"),
        lambda o: pod(workers(o)).pop("automountServiceAccountToken"),
        lambda o: container(workers(o)).update(image="iin-serve:latest"),
        lambda o: container(workers(o)).update(image="registry.example.com:5000/iin-serve"),
        lambda o: cluster(o)["autoscalerOptions"].pop("securityContext"),
        lambda o: pod(workers(o)).update(hostNetwork=True),
        lambda o: pod(workers(o))["volumes"].append({"name": "a", "hostPath": {"path": "/"}}),
        lambda o: container(workers(o))["ports"][-1].update(hostPort=9000),
        lambda o: container(workers(o))["securityContext"].update(runAsUser=0),
        lambda o: container(workers(o))["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        lambda o: container(workers(o))["securityContext"].update(privileged=True),
        lambda o: o.append({"kind": "Secret"}),
    ],
    serving.the_bundle_is_mounted: [
        lambda o: pod(workers(o))["volumes"].clear(),
        serve(user_config__bundle="/bundle/model"),
        lambda o: container(workers(o))["volumeMounts"][-1].pop("readOnly"),
        lambda o: pod(workers(o))["volumes"][-1]["image"].update(reference="iin-bundle:1"),
        lambda o: pod(workers(o))["volumes"][-1]["image"].update(reference="iin-bundle@sha256:0123"),
        serve(ray_actor_options__runtime_env={"working_dir": "https://example.com/x.zip"}),
    ],
    rules.pods_have_the_volumes_that_they_mount: [
        lambda o: container(head(o))["volumeMounts"][0].update(name="temp"),
        lambda o: cluster(o)["autoscalerOptions"].update(volumeMounts=[{"name": "temp", "mountPath": "/tmp"}]),
        lambda o: container(workers(o))["volumeMounts"].pop(0),
    ],
    rules.what_is_made_for_pods_is_named_by_one: [
        lambda o: [container(one).pop("envFrom") for one in groups(o)],
        lambda o: o.append({"kind": "PersistentVolumeClaim", "metadata": {"name": "bundles"}}),
        lambda o: o.append({"kind": "ConfigMap", "metadata": {"name": "iin-bundle-source-0123456789"}}),
    ],
    rules.words_are_those_of_kubernetes: [
        lambda o: container(head(o)).update(imagePullPolicy="IfNotPresnt"),
        lambda o: pod(workers(o))["topologySpreadConstraints"][0].update(whenUnsatisfiable="Schedule"),
        lambda o: pod(workers(o)).update(tolerations=[{"operator": "Exists", "effect": "NoSchedul"}]),
        lambda o: pod(workers(o)).update(tolerations=[{"operator": "Exist", "effect": "NoSchedule"}]),
        lambda o: pod(workers(o))["volumes"][0]["emptyDir"].update(sizeLimit="8GB"),
        lambda o: cluster(o)["autoscalerOptions"]["resources"]["limits"].update(memory="1GiB"),
    ],
    rules.the_head_finds_its_memory: [
        lambda o: first(o, "StatefulSet").update(replicas=3),
        lambda o: named(o, "Service", "iin-valkey")["spec"].update(selector={"app": "valkey"}),
        redis("redis://valkey:6379"),
        redis("redis://iin-valkey.iin.svc:6380"),
        redis("redis://iin-valkey.other.svc:6379"),
        redis("redis://valkey.iin.svc:6379"),
        redis("rediss://iin-valkey:6379"),
        lambda o: cluster(o)["gcsFaultToleranceOptions"].pop("redisPassword"),
    ],
    serving.gpus_are_asked_for_together: [
        serve(ray_actor_options__num_gpus=1),
        lambda o: container(workers(o))["resources"]["limits"].update({"nvidia.com/gpu": "1"}),
        lambda o: container(workers(o)).update(image="registry.example.com/iin:2"),
    ],
    serving.shared_gpus_hold_their_replicas: [
        serve(ray_actor_options__num_gpus=0.5),
        shared_gpu(6 * GIB, 24 * 1024),
    ],
    gateway.the_gateway_leads_to_the_service: [
        lambda o: ray_service(o)["serveService"]["metadata"].update(name="iin"),
        lambda o: first(o, "Gateway")["listeners"][0].update(protocol="HTTP"),
        lambda o: first(o, "GRPCRoute").update(hostnames=["a.b"]),
        lambda o: first(o, "GRPCRoute")["parentRefs"][0].update(sectionName="a"),
        lambda o: first(o, "GRPCRoute")["parentRefs"][0].update(name="a"),
        lambda o: first(o, "SecurityPolicy").pop("apiKeyAuth"),
        lambda o: first(o, "BackendTrafficPolicy").update(apiKeyAuth=first(o, "SecurityPolicy").pop("apiKeyAuth")),
        lambda o: first(o, "SecurityPolicy")["targetRefs"][0].update(kind="HTTPRoute"),
        lambda o: first(o, "GRPCRoute")["rules"][0].update(matches=[]),
        lambda o: first(o, "GRPCRoute")["rules"][0]["matches"][0]["method"].update(method="Interpret"),
        lambda o: first(o, "BackendTrafficPolicy")["timeout"]["http"].update(requestTimeout="15s"),
    ],
    gateway.the_gateway_outlives_a_proxy: [
        lambda o: first(o, "Gateway").pop("infrastructure"),
        lambda o: proxies(o)["envoyDeployment"].pop("replicas"),
        lambda o: proxies(o)["envoyPDB"].update(minAvailable=2),
        lambda o: proxies(o).pop("envoyPDB"),
        lambda o: first(o, "EnvoyProxy")["shutdown"].update(drainTimeout="60s"),
    ],
}

RIGHT = {
    rules.ray_start_knows_its_options: [lambda o: head(o)["rayStartParams"].update({"no-monitor": "true"})],
    serving.no_pod_holds_all_replicas: [lambda o: (large_pods(o), serve(max_replicas_per_node=2)(o))],
    rules.pods_have_the_volumes_that_they_mount: [lambda o: pod(workers(o)).update(initContainers=[{"name": "a"}])],
    policies.only_known_peers: [lambda o: pod(workers(o)).update(initContainers=[{"name": "a"}])],
    rules.what_is_made_for_pods_is_named_by_one: [
        lambda o: (
            o.append({"kind": "ConfigMap", "metadata": {"name": "authorities"}}),
            pod(workers(o))["volumes"].append({"name": "authorities", "configMap": {"name": "authorities"}}),
        )
    ],
    rules.the_head_finds_its_memory: [
        valkey_behind_others,
        redis("redis://iin-valkey.iin:6379"),
        redis("redis://iin-valkey.iin.svc:6379"),
        redis("rediss://iin.cache.example.com:6380"),
    ],
    gateway.the_gateway_leads_to_the_service: [
        lambda o: first(o, "GRPCRoute")["parentRefs"][0].pop("sectionName"),
        lambda o: (
            first(o, "Gateway")["listeners"][0].update(hostname="*.example.com"),
            first(o, "GRPCRoute").update(hostnames=["iin.example.com"]),
        ),
        lambda o: first(o, "BackendTrafficPolicy")["timeout"]["http"].update(requestTimeout="1m15s"),
    ],
    rules.ports_have_their_names: [
        lambda o: container(workers(o))["ports"].append({"name": "profile", "containerPort": 6060})
    ],
    serving.pods_ask_for_what_replicas_use: [
        lambda o: container(head(o))["resources"]["requests"].update(memory="8192Mi")
    ],
    gateway.the_gateway_outlives_a_proxy: [
        lambda o: first(o, "EnvoyProxy")["shutdown"].update(drainTimeout="1m20s500ms")
    ],
}


@pytest.mark.parametrize(("rule", "plant"), each(MISTAKES))
def test_finds_a_mistake(rule, plant):
    objects = render("full")
    plant(objects)
    assert list(rule(objects))


@pytest.mark.parametrize(("rule", "edit"), each(RIGHT))
def test_what_an_operator_may_change_is_no_mistake(rule, edit):
    objects = render("full")
    edit(objects)
    assert list(rule(objects)) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [(2, 2), ("0.5", 0.5), ("500m", 0.5), ("1e3", 1e3), ("2k", 2e3), ("1T", 1e12), ("1Ti", 2**40), ("512Mi", 2**29)],
)
def test_quantities_are_read(given, expected):
    assert quantity(given) == expected


@pytest.mark.parametrize(
    ("read", "given"), [(quantity, "8GB"), (quantity, "Gi"), (quantity, "8 Gi"), (seconds, "75"), (seconds, "1.5m")]
)
def test_what_cannot_be_read_is_named(read, given):
    with pytest.raises(ValueError, match=f"expected a .*, got '{given}'"):
        read(given)


def test_replicas_may_share_a_gpu_that_holds_them():
    objects = render("gpu")
    shared_gpu(5 * GIB, 24 * 1024)(objects)
    assert not list(serving.shared_gpus_hold_their_replicas(objects))


@pytest.mark.parametrize("url", ["http://a.example.com/b.tar", "https://minio.models:9000/b.tar"])
def test_workers_are_let_out_to_where_their_bundle_is(url):
    objects = render("init")
    (source,) = [one for one in of_kind(objects, "ConfigMap") if "BUNDLE_URL" in one["data"]]
    assert list(policies.only_known_peers(objects)) == []
    source["data"]["BUNDLE_URL"] = url
    (found,) = policies.only_known_peers(objects)
    assert url in found


@pytest.mark.parametrize(
    "plant",
    [
        lambda one: one["volumeMounts"][0].update(mountPath="/bundle"),
        lambda one: one["volumeMounts"][0].update(name="temporary"),
        lambda one: one.pop("volumeMounts"),
    ],
)
def test_an_empty_volume_is_filled_where_replicas_read(plant):
    objects = render("init")
    assert list(serving.the_bundle_is_mounted(objects)) == []
    plant(only("init container", pod(workers(objects))["initContainers"]))
    assert list(serving.the_bundle_is_mounted(objects))


@pytest.fixture
def fetch(tmp_path):
    """The init container's own script with a folder and a server of the test's."""
    (tmp_path / "served").mkdir()
    (tmp_path / "bundles").mkdir()
    with tarfile.open(tmp_path / "served/model.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("manifest.json"))
    command = only("init container", pod(workers(render("init")))["initContainers"])["command"]
    command = [one.replace("/bundles/", f"{tmp_path}/bundles/") for one in command]
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()

        def run(path, digest):
            source = {"BUNDLE_URL": f"http://127.0.0.1:{server.server_port}/{path}", "BUNDLE_SHA256": digest}
            environment = os.environ | source | {"no_proxy": "127.0.0.1"}
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

        yield run
        server.shutdown()


@pytest.mark.skipif(shutil.which("wget") is None, reason="wget is not installed, which the image has")
def test_a_pod_starts_with_the_bundle_whose_digest_is_given_and_no_other(fetch, tmp_path):
    right = hashlib.sha256((tmp_path / "served/model.tar").read_bytes()).hexdigest()
    for path, digest, said in (
        ("model.tar", 64 * "0", "computed checksum did NOT match"),
        ("model.tar", "", "no properly formatted"),
        ("other.tar", right, ""),
    ):
        done = fetch(path, digest)
        assert done.returncode != 0
        assert said in done.stderr
        assert not (tmp_path / "bundles/model").exists()
    for _ in range(2):  # the kubelet may run it again
        done = fetch("model.tar", right)
        assert done.returncode == 0, done.stderr
        assert [path.name for path in (tmp_path / "bundles").rglob("*")] == ["model", "manifest.json"]


def images(head_image, workers_image):
    objects = render("gpu")
    container(head(objects)).update(image=head_image)
    container(workers(objects)).update(image=workers_image)
    return objects


@pytest.mark.parametrize("tag", [":7", "@sha256:" + 64 * "1", ":0.1.0-gpu"])
def test_images_may_have_names_of_ones_own(tag):
    assert not list(serving.gpus_are_asked_for_together(images("iin:0.1.0-cpu", f"iin{tag}")))


@pytest.mark.parametrize("tag", ["0.1.0-cpu", "0.2.0-gpu"])
def test_gpu_workers_have_the_image_of_the_heads_version(tag):
    assert list(serving.gpus_are_asked_for_together(images("iin:0.1.0-cpu", f"iin:{tag}")))


def test_every_rule_has_a_mistake():
    assert set(MISTAKES) == set(rules.RULES)
