"""The runbook names what there is."""

import math
import re

import pytest
import yaml

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
    (few, few_ms), (many, many_ms), (samples, samples_ms) = (
        rates[key] for key in (("Interpret", 16), ("Interpret", 64), ("Sample", 64))
    )
    assert f"{few} Interprets a second with 16 callers (half of them answered within {few_ms} ms), " in FLAT
    assert f", {many} with 64 ({many_ms} ms), {samples} Samples with 64 ({samples_ms} ms)" in FLAT
    example = re.search(r"([\d,]+) Interprets a second.{,40}: (\d+) / (\d+) / 0.7 = ([\d.]+), so (\d+) replicas", FLAT)
    calls, rate, exactly, replicas = (float(number) for number in example.groups()[1:])
    assert (float(example[1].replace(",", "")), rate) == (calls, few)
    assert (exactly, replicas) == (round(calls / rate / 0.7, 1), math.ceil(calls / rate / 0.7))
    slots = int(workers(render("full"))["rayStartParams"]["num-cpus"])
    pods = math.ceil(replicas * 1.25 / slots)
    assert f"{replicas:g} * 1.25 / {slots} = {replicas * 1.25 / slots:.1f}, so {pods} pods" in FLAT


def assert_told(text):
    if text not in FLAT:
        pytest.fail(f"deploy/RUNBOOK.md: expected {text!r}, as the manifests have it; change it there too")


def test_values_are_those_of_the_manifests():
    one = deployment(serve_config(render("full")))
    assert_told(f"`target_ongoing_requests: {one['autoscaling_config']['target_ongoing_requests']}`")
    assert_told(f"shutdown of a replica {one['graceful_shutdown_timeout_s']} s < drain 90 s < grace 120 s")


def test_sizes_are_those_of_the_manifests():
    group = workers(render("full"))
    resources = container(group)["resources"]
    cores, memory = quantity(resources["requests"]["cpu"]), quantity(resources["limits"]["memory"]) / 2**30
    assert_told(f"A pod of {group['rayStartParams']['num-cpus']} replicas asks for {cores:g} cores and {memory:g} GiB")
    assert_told(f"two workers of {cores:g} cores and {memory:g} GiB")
    replica = deployment(serve_config(render("full")))["ray_actor_options"]["memory"]
    assert "2.25 GiB + the bundle twice + 77,824 * 4 bytes * channels * height * width" in FLAT
    assert replica > 2.25 * 2**30 + 77_824 * 4 * 3 * 32 * 32, "the formula under Capacity, with pictures of 3x32x32"
