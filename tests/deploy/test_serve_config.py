"""serve.yaml against Ray's own models, made strict, and against the service."""

import importlib
import re
from importlib import resources

import pytest
import yaml
from iin_service import app
from iin_service.configuration import shipped_configuration
from iin_service.replica import Replica

from .manifests import GPU_SERVE_YAML, SERVE_YAML, deployment, of_kind, ray_service, render
from .serve_schema import problems

# What the GPU component may change; all else is the same, and explained once.
GPU_VALUES = {
    ("args",),
    ("ray_actor_options", "num_gpus"),
    ("ray_actor_options", "memory"),
    ("autoscaling_config", "min_replicas"),
    ("autoscaling_config", "max_replicas"),
    ("autoscaling_config", "target_ongoing_requests"),
}


@pytest.mark.parametrize("path", [SERVE_YAML, GPU_SERVE_YAML], ids=["cpu", "gpu"])
def test_ray_takes_every_key(path):
    assert problems(path.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_ongoing_requests: 5120", "max_concurrent_queries: 5120", "max_concurrent_queries: unknown key"),
        ("  enable_reflection: false", "  tls: {}", r"grpc_options\[0\].tls: unknown key"),
        (r"max_replicas: \d+", "max_replicas: 0", "greater than 0"),
        (r"max_replicas: \d+", "max_replicas: 1", "greater than or equal to min_replicas"),
        (r"min_replicas: \d+", "min_replicas: 0", "min_replicas"),
        (r"target_ongoing_requests: \d+", "target_ongoing_requests: 5120", "below max_ongoing_requests"),
        ("target_ongoing_requests:", "target_num_ongoing_requests_per_replica:", "unknown key"),
        ("rolling_update_percentage: 0.25", "rolling_update_percentage: 25", "less than or equal to 1"),
        (r"max_queued_requests: \d+", "max_queued_requests: -1", "expected a bound"),
        ("num_cpus: 1", "num_cpu: 1", "num_cpu: unknown key"),
        ("proxy_location: EveryNode", "proxy_location: AllNodes", "proxy_location"),
        ("log_level: WARNING", "log_level: LOUD", "log_level"),
        (r"(?s)(  - name: iin\n)(.*)", r"\1\2\1\2", "Found multiple configs"),
    ],
)
def test_a_mistake_is_found(old, new, message):
    text, times = re.subn(old, new, SERVE_YAML.read_text())
    assert times
    assert any(re.search(message, one) for one in problems(text))


@pytest.mark.parametrize("path", [SERVE_YAML, GPU_SERVE_YAML], ids=["cpu", "gpu"])
def test_what_an_overlay_replaces_is_the_bundle(path):
    """It puts its own path between the first two quotes."""
    before, bundle, _ = path.read_text().split('"')
    assert before.endswith("bundle: ")
    assert bundle == "/bundles/model"


def test_it_serves_what_the_service_has():
    config = yaml.safe_load(SERVE_YAML.read_text())
    for path in config["grpc_options"]["grpc_servicer_functions"]:
        module, _, function = path.rpartition(".")
        servicer = getattr(importlib.import_module(module), function.removeprefix("add_").removesuffix("_to_server"))
        rpcs = {name for name in vars(servicer) if not name.startswith("_")}
        assert rpcs
        assert rpcs <= set(dir(Replica))


def test_iin_serve_takes_the_same_but_for_what_a_laptop_decides():
    config, shipped = yaml.safe_load(SERVE_YAML.read_text()), shipped_configuration()
    assert changed(config["grpc_options"], shipped.grpc_options) == {"enable_reflection", "request_timeout_s"}
    assert changed(config["logging_config"], shipped.logging_config) == {"encoding"}
    assert changed(deployment(config), shipped.deployment) == {
        "name",
        "user_config",
        "ray_actor_options",
        "autoscaling_config",
        "graceful_shutdown_wait_loop_s",
        "graceful_shutdown_timeout_s",
        "logging_config",  # for replicas too; in the file once, for all of Serve
    }


def test_the_builder_leaves_everything_else_to_the_file():
    built = app.build(app.BuildArguments())._bound_deployment
    chosen = {name for name in built._deployment_config.user_configured_option_names if not name.startswith("_")}
    assert chosen == {"name", "ray_actor_options"}


def changed(one, other):
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


def test_the_package_has_the_very_file():
    assert resources.files("iin_service").joinpath("serve.yaml").read_bytes() == SERVE_YAML.read_bytes()


def test_gpu_changes_a_few_values_only():
    cpu, gpu = (yaml.safe_load(path.read_text()) for path in (SERVE_YAML, GPU_SERVE_YAML))
    for config in (cpu, gpu):
        (application,) = config["applications"]
        for *way, last in GPU_VALUES:
            place = application if last == "args" else deployment(config)
            for step in way:
                place = place[step]
            del place[last]
    assert cpu == gpu


@pytest.mark.parametrize(("variant", "path"), [("full", SERVE_YAML), ("gpu", GPU_SERVE_YAML)])
def test_the_manifests_carry_the_file(variant, path):
    objects = render(variant)
    assert ray_service(objects)["serveConfigV2"] == path.read_text()
    names = {one["metadata"]["name"].rpartition("-")[0] for one in of_kind(objects, "ConfigMap")}
    assert "serve-config" not in names, "a source, not to be applied"
