"""The runbook names what there is."""

import re

import pytest
import yaml

from .manifests import DEPLOY, ROOT, deployment, render, serve_config
from .test_monitoring import ALERTS

TEXT = (DEPLOY / "RUNBOOK.md").read_text()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\b(?:tests/)?deploy/[\w./-]*\w", TEXT))))
def test_paths_exist(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_every_alert_is_answered(alert):
    assert f"`{alert}`" in TEXT


def test_every_secret_is_made():
    made = set(re.findall(r"create secret (?:generic|tls) ([\w-]+)", TEXT))
    text = yaml.safe_dump_all(render("prod"))
    read = set(re.findall(r"secretKeyRef:\s+key: \w+\s+name: ([\w-]+)", text))
    read |= set(re.findall(r"kind: Secret\s+name: ([\w-]+)", text))
    assert made == read == {"iin-valkey", "iin-tls", "iin-callers"}


def test_values_are_those_of_the_manifests():
    one = deployment(serve_config(render("prod")))
    assert f"`target_ongoing_requests: {one['autoscaling_config']['target_ongoing_requests']}`" in TEXT
    assert f"shutdown of a replica {one['graceful_shutdown_timeout_s']} s < drain 90 s < grace 120 s" in TEXT
