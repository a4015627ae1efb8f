"""What does not export, or has other numbers in its graph, is found before a long training."""

import os
import subprocess
import sys

import pytest
import torch
from iin_training.graphs import ExportError, check_exportable
from iin_training.models.frozen import FrozenModel
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
SHAPE = (1, 6, 10)


class Branching(nn.Module):
    """Takes another way for bright pictures, which no graph can."""

    def forward(self, images):
        return images.flatten(1) if float(images.mean()) > 0.5 else -images.flatten(1)


class OfFixedBatch(nn.Module):
    """Asks for the batch size in a way that fixes it."""

    def forward(self, latents):
        return torch.sigmoid(latents).reshape(len(latents), *SHAPE)


class InPlace(nn.Flatten):
    """Overwrites what it is given, as a normalisation or a first ReLU in place does."""

    def forward(self, items):
        return super().forward(items.sub_(0.5))


class OtherInGraph(nn.Module):
    """Computes something else in its graph than in torch."""

    def forward(self, latents):
        return 3 * latents[:, :4] if torch.compiler.is_exporting() else latents[:, :4]


def checked(directory, encoder, **parts):
    model = FrozenModel(encoder, image_shape=SHAPE, value_range=(0.0, 1.0), **parts)
    check_exportable(model, torch.rand(32, *SHAPE), directory)
    return model


def test_a_model_that_exports_passes_and_is_left_as_it_was(tmp_path):
    head = nn.Linear(60, 3)
    before = FrozenModel(nn.Flatten(), image_shape=SHAPE, value_range=(0.0, 1.0), head=head).digest()
    assert checked(tmp_path, nn.Flatten(), head=head).digest() == before
    checked(tmp_path, nn.Flatten(), decoder=nn.Unflatten(1, SHAPE), head=head)
    checked(tmp_path, InPlace(), head=nn.Sequential(nn.Hardtanh(inplace=True), head))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"encoder": Branching()}, r"encoder: expected a network that torch\.onnx exports .* no branches on values"),
        (
            {"decoder": OfFixedBatch()},
            r"decoder: expected .* a graph for batches of 2 only; .*x\.shape\[0\] rather than len",
        ),
        ({"head": OtherInGraph()}, r"head: onnxruntime differs from torch by 0\.\d+ at batch 1, allowed 0\.0001"),
    ],
)
def test_what_does_not_export_is_refused(parts, words, tmp_path):
    with pytest.raises(ExportError, match=words):
        checked(tmp_path, **({"encoder": nn.Flatten()} | parts))


def test_onnxruntime_sends_no_telemetry(tmp_path):
    """Where it does, it keeps a mark of the device and what is to be sent below HOME."""
    kept = {
        key: value for key, value in os.environ.items() if key not in ("ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME")
    }
    command = "import iin_training.graphs, onnxruntime; onnxruntime.get_available_providers()"
    subprocess.run([sys.executable, "-c", command], env=kept | {"HOME": str(tmp_path)}, check=True)
    assert not [*tmp_path.rglob("*onnxruntime*")]
