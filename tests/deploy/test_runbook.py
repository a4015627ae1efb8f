"""The runbook names what there is."""

import math
import re

import pytest
import yaml

from deploy.capacity.hardware import HOST_CORES
from deploy.capacity.plan import COMFORT

from .manifests import DEPLOY, ROOT, container, deployment, quantity, render, serve_config, workers
from .test_monitoring import ALERTS

TEXT, TRIED = ((DEPLOY / name).read_text() for name in ("RUNBOOK.md", "TRIED.md"))
FLAT = " ".join(TEXT.split())


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\b(?:tests/)?deploy/[\w./-]*\w", TEXT + TRIED))))
def test_paths_exist(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_every_alert_is_answered(alert):
    assert f"`{alert}`" in TEXT


def test_every_secret_is_made():
    made = set(re.findall(r"create secret (?:generic|tls) ([\w-]+)", TEXT))
    text = yaml.safe_dump_all(render("full"))
    read = set(re.findall(r"secretKeyRef:\s+key: \w+\s+name: ([\w-]+)", text))
    read |= set(re.findall(r"kind: Secret\s+name: ([\w-]+)", text))
    assert made == read == {"iin-valkey", "iin-tls", "iin-callers"}


def test_rates_are_those_measured():
    """And the example reckons with them."""
    rows = re.findall(
        r"^\| (Interpret|Sample) \| (16|64) \| iin-serve \| ([\d.]+) \| \| ([\d.]+) ",
        (ROOT / "docs" / "SERVING.md").read_text().partition("\n## Graphs of")[0],
        re.M,
    )
    rates = {(call, int(callers)): (round(float(rate)), round(float(ms))) for call, callers, rate, ms in rows}
    for call, callers in (("Interpret", 16), ("Interpret", 64), ("Sample", 64)):
        rate, ms = rates[call, callers]
        assert_says(f"| {call} | {callers} | {rate} | {ms} ms |")
    division = rf"(\d+) / (\d+) / {COMFORT} = ([\d.]+), so (\d+) replicas"
    example = re.search(r"([\d,]+) Interprets a second.{,50}: " + division, FLAT)
    calls, rate, exactly, replicas = (float(number) for number in example.groups()[1:])
    assert (float(example[1].replace(",", "")), rate) == (calls, rates["Interpret", 16][0])
    assert (exactly, replicas) == (round(calls / rate / COMFORT, 1), math.ceil(calls / rate / COMFORT))
    slots = int(workers(render("full"))["rayStartParams"]["num-cpus"])
    surge = 1 + deployment(serve_config(render("full")))["max_surge_percent"] / 100
    pods = replicas * surge / slots
    assert_says(f"{replicas:g} * {surge:g} / {slots} = {pods:.1f}, so {math.ceil(pods)} pods")


def assert_says(text):
    if text not in FLAT:
        pytest.fail(f"deploy/RUNBOOK.md: expected {text!r}, as measured or as in the manifests; change it there too")


def test_values_are_those_of_the_manifests():
    one = deployment(serve_config(render("full")))
    assert_says(f"`target_ongoing_requests: {one['autoscaling_config']['target_ongoing_requests']}`")
    assert_says(f"shutdown of a replica {one['graceful_shutdown_timeout_s']} s < drain 90 s < grace 120 s")


def test_sizes_are_those_of_the_manifests():
    group = workers(render("full"))
    resources = container(group)["resources"]
    cores, memory = quantity(resources["requests"]["cpu"]), quantity(resources["limits"]["memory"]) / 2**30
    assert_says(f"A pod of {group['rayStartParams']['num-cpus']} replicas asks for {cores:g} cores and {memory:g} GiB")
    assert_says(f"two workers of {cores:g} cores and {memory:g} GiB")
    assert cores / int(group["rayStartParams"]["num-cpus"]) == HOST_CORES, "of a CPU replica in the capacity model"
    replica = deployment(serve_config(render("full")))["ray_actor_options"]["memory"]
    assert "2.25 GiB + the bundle twice + 77,824 * 4 bytes * channels * height * width" in FLAT
    assert replica > 2.25 * 2**30 + 77_824 * 4 * 3 * 32 * 32, "the formula under Capacity, with pictures of 3x32x32"
