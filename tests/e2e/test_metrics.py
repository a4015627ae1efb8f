"""The metrics as Prometheus scrapes them from Ray's agent of a node."""

import re
import time
import urllib.request

import pytest
from iin_client import CallError, Client, Replace

from .conftest import serving


@pytest.fixture(scope="module")
def scraped(cluster, digits_bundle, tmp_path_factory):
    """Every series after some calls, as `name{labels}` to its value."""
    with serving(digits_bundle, tmp_path_factory.mktemp("metrics") / "log", *cluster.options) as running:
        pictures = sorted((digits_bundle / "samples").glob("*.png"))
        with Client(running.address, timeout=60) as client:
            for _ in range(5):
                client.interpret(pictures[:4])
            client.edit(pictures[0], Replace("digit", pictures[1]))
            list(client.interpret_stream([("a", pictures[0]), ("b", b"junk")]))
            with pytest.raises(CallError):
                client.interpret(b"junk")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with urllib.request.urlopen(f"http://127.0.0.1:{cluster.metrics_port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
            if "ray_iin_requests_total" in text and "ray_iin_image_failures_total" in text:
                break
            time.sleep(1)
        yield text


def value(text, name, **labels):
    """Sum over the series of a name that have these labels."""
    found = []
    for line in text.splitlines():
        match = re.match(r"(\w+)\{(.*)\} (\S+)$", line)
        if match and match[1] == name and all(f'{key}="{one}"' in match[2] for key, one in labels.items()):
            found.append(float(match[3]))
    assert found, f"{name} {labels} is not exported"
    return sum(found)


def test_calls_are_counted_by_rpc_and_status(scraped):
    assert value(scraped, "ray_iin_requests_total", rpc="Interpret", code="OK", application="digits") == 5
    assert value(scraped, "ray_iin_requests_total", rpc="Interpret", code="INVALID_ARGUMENT") == 1
    assert value(scraped, "ray_iin_requests_total", rpc="InterpretStream", code="INVALID_ARGUMENT") == 1
    assert value(scraped, "ray_iin_request_seconds_count", rpc="Edit") == 1


def test_stages_likelihoods_and_images_are_measured(scraped):
    for stage in ("encoder", "transform", "inverse", "decoder"):
        assert value(scraped, "ray_iin_stage_compute_seconds_count", stage=stage) >= 1
        assert value(scraped, "ray_iin_stage_batch_items_count", stage=stage) >= 1
        assert value(scraped, "ray_iin_stage_queue_seconds_count", stage=stage) >= 1
    assert value(scraped, "ray_iin_log_likelihood_quantile_count") == 5 * 4 + 1  # Edit has none
    assert value(scraped, "ray_iin_image_failures_total") == 2
    assert value(scraped, "ray_iin_items_under_way") == 0
    assert value(scraped, "ray_iin_bundle_refused") == 0
