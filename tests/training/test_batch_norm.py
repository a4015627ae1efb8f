"""Batch normalisation by the statistics of all processes."""

import pytest
import torch
from iin_training.models import batch_norm
from iin_training.models.batch_norm import BatchNorm
from torch import nn


@pytest.fixture
def two_alike(monkeypatch):
    """As if another process had the very same images."""
    monkeypatch.setattr(batch_norm, "processes", lambda: 2)
    monkeypatch.setattr(batch_norm, "average", lambda values: values)


def passed(layer, images):
    """Output, gradient of the input, and running statistics."""
    images = images.clone().requires_grad_()
    output = layer(images)
    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    return output, images.grad, layer.running_mean, layer.running_var


@pytest.mark.parametrize("mean", [0.0, 100.0])  # far from 0, squares lose what a variance is made of
def test_it_is_what_one_process_computes(two_alike, mean):
    images = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 0.1 + mean
    ours, theirs = passed(BatchNorm(3), images), passed(nn.BatchNorm2d(3), images)
    for found, expected in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    # Twice as many images: n / (n - 1) is a little smaller.
    torch.testing.assert_close(ours[3] - 0.9, (theirs[3] - 0.9) * (200 / 199) * (99 / 100), rtol=1e-3, atol=1e-6)


def test_under_autocast_statistics_keep_their_digits(two_alike):
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.1 + 4
    layer = BatchNorm(3)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(images.bfloat16())
    assert output.dtype == torch.bfloat16
    assert layer.running_var.dtype == torch.float32
    torch.testing.assert_close(output.float().std(dim=(0, 2, 3)), torch.ones(3), rtol=0.05, atol=0)
