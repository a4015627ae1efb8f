"""Training T: the number format of its products."""

from dataclasses import replace

import pytest
import torch
from iin_training.flows import interpretation_flow

from tests.training.test_resuming import metrics

TRANSFORM = pytest.mark.parametrize("stage", ["transform"], indirect=True)


@TRANSFORM
def test_bfloat16_products_train_to_about_the_same_and_leave_float32(stage, tmp_path):
    settings = stage.settings(steps=81)
    stage.train(tmp_path / "exact", settings=settings)
    weights = stage.train(tmp_path / "rough", settings=replace(settings, precision="bfloat16"))
    assert {value.dtype for name, value in weights.items() if "order" not in name} == {torch.float32}
    exact, rough = ([line["loss"] for line in metrics(tmp_path / way, "transform")] for way in ("exact", "rough"))
    assert rough == pytest.approx(exact, abs=0.1, rel=0.01)
    assert rough != exact


def test_under_autocast_only_the_products_lose_digits():
    flow = interpretation_flow(8, blocks=2, hidden=16, depth=1, seed=0).train()
    latents = torch.randn(64, 8)
    exact = flow(latents)
    with torch.autocast("cpu", torch.bfloat16):
        rough = flow(latents)
        back, log_abs_det = flow.inverse(rough[0])
    assert {value.dtype for value in (*rough, back, log_abs_det)} == {torch.float32}
    assert not torch.equal(rough[0], exact[0])
    # Both directions compute the same s and t, so what was lost in them is undone.
    torch.testing.assert_close(back, latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_abs_det, -rough[1], atol=1e-5, rtol=1e-5)
