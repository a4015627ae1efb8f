"""Gauges are set again and again, likelihoods are picked evenly, documents list it all."""

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest
from iin_service import metrics


class Kept:
    """Ray's gauge or histogram, as far as it is used; keeps what it is given."""

    def __init__(self, *arguments):
        self.values, self.tags = [], []

    def set(self, value, tags):
        self.values.append(value)
        self.tags.append(tags)

    observe = set


def test_gauges_are_recorded_again_and_again(monkeypatch):
    """Ray drops a gauge that is not set again; items that wait are told by stage, as the sum of its queues."""
    monkeypatch.setattr(metrics, "Gauge", Kept)
    monkeypatch.setattr(metrics, "GAUGE_SECONDS", 0.0)  # over once the event loop goes on

    async def changes():
        recorder = metrics.Metrics()
        under_way, waiting, refused = recorder._under_way, recorder._waiting, recorder._refused
        keeping = asyncio.create_task(recorder.keep_gauges())
        await asyncio.sleep(0.01)
        assert len(refused.values) > 2
        assert set(under_way.values) == set(refused.values) == {0}
        recorder.under_way(3)
        recorder.under_way(5)
        recorder.bundle_refused(True)
        recorder.waiting("transform", 3)  # behind the encoder, and by itself
        recorder.waiting("transform", 4)
        recorder.waiting("inverse", 1)
        await asyncio.sleep(0.01)
        assert set(under_way.values) == {0, 5}
        assert refused.values[-2:] == [1, 1]
        assert (waiting.tags[-2:], waiting.values[-2:]) == ([{"stage": "transform"}, {"stage": "inverse"}], [7, 1])
        recorder.under_way(0)
        recorder.bundle_refused(False)
        recorder.waiting("transform", -7)
        await asyncio.sleep(0.01)
        assert (under_way.values[-1], refused.values[-1], waiting.values[-2:]) == (0, 0, [0, 1])
        keeping.cancel()

    asyncio.run(changes())


@pytest.mark.parametrize("count", [0, 1, 16, 17, 100, 255, 256])
def test_likelihoods_of_a_large_call_are_recorded_by_an_even_pick(monkeypatch, count):
    monkeypatch.setattr(metrics, "Histogram", Kept)
    recorder = metrics.Metrics()
    recorder.likelihoods(np.arange(count) / 256)
    kept = np.array(recorder._quantile.values) * 256
    assert len(kept) == count if count <= 16 else 8 < len(kept) <= 16
    assert len(set(np.diff(kept))) <= 1
    assert set(kept) <= set(range(count))


SERVING = Path(__file__).parents[2] / "docs/SERVING.md"


def test_the_documents_list_every_metric_as_it_is(monkeypatch):
    made = {}
    for kind in ("Counter", "Gauge", "Histogram"):

        def make(name, description, *more, kind=kind):
            labels = [one for one in more if isinstance(one, tuple)]
            made[name] = kind.lower(), list(labels[0]) if labels else [], description

        monkeypatch.setattr(metrics, kind, make)
    metrics.Metrics()
    rows = re.findall(r"^\| `(iin_\w+)` \| (\w+) \| (\w+) \| (.*?) \| (.*) \|$", SERVING.read_text(), re.MULTILINE)
    told = {name: (kind, re.findall(r"`(\w+)`", labels), meaning) for name, kind, _, labels, meaning in rows}
    assert told == made
    assert all(unit in ("calls", "seconds", "items", "images", "share", "flag") for _, _, unit, _, _ in rows)
