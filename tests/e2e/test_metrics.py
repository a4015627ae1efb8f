"""The metrics as Prometheus scrapes them from Ray's agent of a node."""

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from iin_client import CallError, Client, Replace

from .conftest import serving

# Ray's agent collects the service's metrics, the controller's and the node's at paces of their own.
LAST_TO_COME = (
    "ray_iin_image_failures_total",
    "ray_serve_deployment_replica_healthy",
    "ray_node_mem_used",
)
CALLS = 10  # and items of streams, that `scraped` makes: an early scrape has only some
MONITORING = Path(__file__).parents[2] / "deploy" / "components" / "monitoring"


@pytest.fixture(scope="module")
def scraped(cluster, digits_bundle, tmp_path_factory):
    """Every series after some calls, as `name{labels}` to its value."""
    # Serve's proxy in Python loses some cancellations, so that what nobody reads is drawn to its end and counts OK.
    options = (*cluster.options, "--proxy", "haproxy")
    with serving(digits_bundle, tmp_path_factory.mktemp("metrics") / "log", *options) as running:
        pictures = sorted((digits_bundle / "samples").glob("*.png"))
        with Client(running.address, timeout=60) as client:
            left = client.sample(10_000)
            next(left)
            left.close()
            for _ in range(5):
                client.interpret(pictures[:4])
            client.edit(pictures[0], Replace("digit", pictures[1]))
            list(client.interpret_stream([("a", pictures[0]), ("b", b"junk")]))
            with pytest.raises(CallError):
                client.interpret(b"junk")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            text = scrape(cluster)
            counted = sum(map(float, re.findall(r"^ray_iin_requests_total\{.*\} (\S+)$", text, re.M)))
            if counted == CALLS and all(f"\n{name}{{" in text for name in LAST_TO_COME):
                break
            time.sleep(1)
        yield text


def scrape(cluster):
    with urllib.request.urlopen(f"http://127.0.0.1:{cluster.metrics_port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def value(text, name, **labels):
    """Sum over the series of a name that have these labels."""
    found = []
    for line in text.splitlines():
        match = re.match(r"(\w+)\{(.*)\} (\S+)$", line)
        if match and match[1] == name and all(f'{key}="{one}"' in match[2] for key, one in labels.items()):
            found.append(float(match[3]))
    assert found, f"{name} {labels} is not exported, but {re.findall(rf'^{name}{{.*', text, re.MULTILINE)}"
    return sum(found)


def test_calls_are_counted_by_rpc_and_status(scraped):
    assert value(scraped, "ray_iin_requests_total", rpc="Interpret", code="OK", application="digits") == 5
    assert value(scraped, "ray_iin_requests_total", rpc="Interpret", code="INVALID_ARGUMENT") == 1
    assert value(scraped, "ray_iin_requests_total", rpc="InterpretStream", code="INVALID_ARGUMENT") == 1
    assert value(scraped, "ray_iin_request_seconds_count", rpc="Edit") == 1
    assert value(scraped, "ray_iin_requests_total", rpc="Sample", code="CANCELLED") == 1


def test_stages_likelihoods_and_images_are_measured(scraped):
    for stage in ("encoder", "transform", "inverse", "decoder"):
        assert value(scraped, "ray_iin_stage_compute_seconds_count", stage=stage) >= 1
        assert value(scraped, "ray_iin_stage_batch_items_count", stage=stage) >= 1
        assert value(scraped, "ray_iin_stage_queue_seconds_count", stage=stage) >= 1
    assert value(scraped, "ray_iin_log_likelihood_quantile_count") == 5 * 4 + 1  # Edit has none
    assert value(scraped, "ray_iin_image_failures_total") == 2
    assert value(scraped, "ray_iin_items_under_way") == 0
    assert value(scraped, "ray_iin_bundle_refused") == 0


def test_gauges_stay_where_nobody_calls(scraped, cluster):
    """Ray drops a gauge that is not set within two of its reports, here of 5 s each."""
    time.sleep(12)
    text = scrape(cluster)
    for name in ("ray_iin_items_under_way", "ray_iin_stage_waiting_items", "ray_iin_bundle_refused"):
        assert value(text, name) == 0


def expressions():
    """What alerts and panels ask."""
    rules = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"]
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    asked = [rule["expr"] for group in rules for rule in group["rules"]]
    return asked + [target["expr"] for panel in panels for target in panel["targets"]]


SERIES = r"\b(ray_(?!io_cluster)\w+)"


def selectors():
    """Every series of the service and of Ray that an alert or a panel reads, with its matchers."""
    found = re.findall(SERIES + r"(?:\{([^}]*)\})?", "\n".join(expressions()))
    return sorted({(name, matcher) for name, matchers in found for matcher in (matchers or "").split(",")})


def grouped():
    """Series and labels by which an expression groups; those of Kubernetes are not exported here."""
    for asked in expressions():
        labels = set(re.findall(r"\w+", " ".join(re.findall(r"\bby \((.*?)\)", asked))))
        for name in set(re.findall(SERIES, asked)):
            yield from ((name, label) for label in labels - {"namespace", "ray_io_cluster"})


@pytest.mark.parametrize(("name", "matcher"), selectors())
def test_what_alerts_and_dashboard_read_is_there(scraped, name, matcher):
    label, operator, wanted = re.fullmatch(r'\s*(?:(\w+)(=~|!~|=)"(.*)")?\s*', matcher).groups()
    # Prometheus adds the namespace; variables have no value here, patterns several, and not every status was seen.
    exact = operator == "=" and "$" not in wanted and label not in ("namespace", "code")
    labels = {label: wanted} if exact else {}
    value(scraped, name, **labels)  # asserts that there is one
    if label not in (None, "namespace"):
        assert re.search(rf'^{name}\{{.*\b{label}="', scraped, re.MULTILINE)


@pytest.mark.parametrize(("name", "label"), sorted(set(grouped())))
def test_what_alerts_and_dashboard_group_by_is_there(scraped, name, label):
    assert re.search(rf'^{name}\{{.*\b{label}="', scraped, re.MULTILINE)
