"""The histogram of likelihoods, which tells of drift: each item of a small call, and an even pick of a large one."""

import numpy as np
import pytest
from iin_service import metrics


class Kept:
    """Ray's histogram, as far as it is used; keeps what it is given."""

    def __init__(self, *arguments):
        self.values = []

    def observe(self, value, tags):
        self.values.append(value)


@pytest.mark.parametrize("count", [0, 1, 16, 17, 100, 255, 256])
def test_a_large_call_is_recorded_by_an_even_pick(monkeypatch, count):
    monkeypatch.setattr(metrics, "Histogram", Kept)
    recorder = metrics.Metrics()
    recorder.likelihoods(np.arange(count) / 256)
    kept = np.array(recorder._quantile.values) * 256
    assert len(kept) == count if count <= 16 else 8 < len(kept) <= 16
    assert len(set(np.diff(kept))) <= 1
    assert set(kept) <= set(range(count))
