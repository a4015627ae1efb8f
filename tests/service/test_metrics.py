"""The gauge of items under way: set now and then, and never left at an old value."""

import asyncio

from iin_service import metrics


class Kept:
    """Ray's gauge, as far as it is used; keeps what it is given."""

    def __init__(self, name, description):
        self.values = []

    def set(self, value, tags):
        self.values.append(value)


def test_changes_within_the_time_are_recorded_once_and_later_ones_again(monkeypatch):
    monkeypatch.setattr(metrics, "Gauge", Kept)
    monkeypatch.setattr(metrics, "GAUGE_SECONDS", 0.0)  # over once the event loop goes on

    async def changes():
        recorder = metrics.Metrics()
        gauge = recorder._under_way
        recorder.under_way(3)
        recorder.under_way(5)
        assert gauge.values == []
        await asyncio.sleep(0.01)
        assert gauge.values == [5]
        await asyncio.sleep(0.01)
        assert gauge.values == [5]
        recorder.under_way(4)
        recorder.under_way(0)
        await asyncio.sleep(0.01)
        assert gauge.values == [5, 0]

    asyncio.run(changes())
