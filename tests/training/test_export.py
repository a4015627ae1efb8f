"""Export refuses what does not reproduce its network, and replaces a bundle whole or not at all."""

import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnxruntime
import pytest
import torch
from iin_bundle import BundleError, Figure, read_bundle
from iin_bundle.factors import FactorLayout
from iin_training import export, graphs
from iin_training.evaluation import Evaluation
from iin_training.export import Exported, export_bundle, read_checked
from iin_training.flows import ActNorm, Flow, interpretation_flow
from iin_training.graphs import ExportError, open_runner
from iin_training.models.autoencoder import Autoencoder, freeze

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies


class OtherInGraph(Autoencoder):
    """An encoder that computes something else in its graph than in torch."""

    def posterior(self, images):
        mean, log_variance = super().posterior(images)
        return mean + 0.5 if torch.compiler.is_exporting() else mean, log_variance


class OtherInLargeBatches(Autoencoder):
    """An encoder whose graph is right for the batch it was exported with, and wrong for larger ones."""

    def posterior(self, images):
        mean, log_variance = super().posterior(images)
        return mean if torch.compiler.is_exporting() or len(images) < 32 else mean + 0.5, log_variance


def encoder(kind=Autoencoder):
    torch.manual_seed(0)
    return freeze(kind(image_size=8, channels=3, width=4, latent_size=4))


def flow():
    return interpretation_flow(4, blocks=2, hidden=32, depth=2, seed=0).eval().requires_grad_(False)


def what(name="tiny"):
    numbers = torch.Generator().manual_seed(0)
    log_likelihoods = torch.linspace(-9, -3, 50, dtype=torch.float64).numpy()
    return Exported(
        name=name,
        version="7",
        layout=FactorLayout.from_sizes({"residual": 2, "digit": 1, "colour": 1}),
        evaluation=Evaluation({"swap": Figure(value=0.5, meaning="half")}, log_likelihoods),
        latents=torch.randn(1200, 4, generator=numbers),
        images=2 * torch.rand(40, 3, 8, 8, generator=numbers) - 1,
        captions=["digit-3", "digit-5"],
        recipe="tiny",
        seed=5,
        data_set="noise",
        data_set_sha256="0" * 64,
    )


@pytest.fixture
def old(tmp_path):
    """A directory that holds an older bundle."""
    directory = tmp_path / "bundle"
    directory.mkdir()
    (directory / "manifest.json").write_text("the older one")
    return directory


def test_large_tensors_lie_beside_the_graphs(tmp_path, monkeypatch):
    small = export_bundle(tmp_path / "small", encoder(), flow(), what())
    monkeypatch.setattr(graphs, "EMBEDDED_BYTES", 100)
    export_bundle(tmp_path / "bundle", encoder(), flow(), what())
    large = read_checked((tmp_path / "bundle").rename(tmp_path / "moved"))
    for role, graph in large.manifest.graphs.items():
        (tensors,) = graph.external_data
        assert tensors.path == f"{role}.onnx.data"
        assert 100 < tensors.bytes < small.manifest.graphs[role].file.bytes
        assert not small.manifest.graphs[role].external_data
        for name, array in large.golden.items():
            assert (array == small.golden[name]).all()


@pytest.mark.parametrize(
    ("kind", "batch"), [(OtherInGraph, 1), (OtherInLargeBatches, 32)], ids=["everywhere", "in large batches"]
)
def test_a_graph_that_differs_from_its_network_is_refused(old, kind, batch):
    words = rf"encoder: onnxruntime differs from torch by 0\.\d+ at batch {batch}, allowed 0\.0001"
    with pytest.raises(ExportError, match=words):
        export_bundle(old, encoder(kind), flow(), what())
    assert (old / "manifest.json").read_text() == "the older one"
    assert not list(old.parent.glob("*.partial/manifest.json"))


def there_and_back(distance):
    """A flow that shifts latents by `distance` and back: float32 rounds off what is less than a step there."""
    shifts = ActNorm(4), ActNorm(4)
    for block, shift in zip(shifts, (distance, -distance), strict=True):
        torch.nn.init.constant_(block.shift, shift)
    return Flow([*shifts, *flow().blocks]).eval().requires_grad_(False)


def test_an_inverse_that_does_not_undo_the_transform_is_refused(tmp_path):
    held = export_bundle(tmp_path / "held", encoder(), there_and_back(1500.0), what())  # steps of 0.00012
    assert 5e-5 < held.manifest.round_trip_error < held.manifest.tolerances.round_trip == 1e-4
    words = r"inverse\(transform\(z\)\) differs from z by 0\.00012\d over 1200 held-out latents, allowed 0\.0001"
    with pytest.raises(ExportError, match=words):
        export_bundle(tmp_path / "bundle", encoder(), there_and_back(3000.0), what())  # steps of 0.00024
    assert not list((tmp_path / "bundle").rglob("manifest.json"))
    with pytest.raises(BundleError):
        read_bundle(tmp_path / "bundle")


def test_a_round_trip_that_gives_no_number_among_others_that_hold_is_refused(tmp_path, monkeypatch):
    runs = iter(range(4))  # 1200 latents in two parts, there and back

    def open_broken(path):
        run = open_runner(path)

        def broken(items):
            outputs = run(items)
            if len(items) > 100 and next(runs) == 3:  # those of the parity checks are smaller
                outputs[0][-1, -1] = float("nan")
            return outputs

        return broken

    monkeypatch.setattr(export, "open_runner", open_broken)
    with pytest.raises(ExportError, match=r"inverse\(transform\(z\)\) differs from z by nan over 1200"):
        export_bundle(tmp_path / "bundle", encoder(), flow(), what())


def test_a_crash_while_a_bundle_is_replaced_loses_none_and_hinders_no_later_export(old, monkeypatch):
    rename = Path.rename

    def fail(self, target):
        if self.name == "bundle.partial":
            raise OSError("power cut")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="power cut"):
        export_bundle(old, encoder(), flow(), what("lost"))
    assert (old.with_name("bundle.replaced") / "manifest.json").read_text() == "the older one"
    assert read_bundle(old.with_name("bundle.partial")).manifest.name == "lost"

    monkeypatch.undo()
    with pytest.raises(ExportError):
        export_bundle(old, encoder(OtherInGraph), flow(), what())
    assert (old / "manifest.json").read_text() == "the older one"

    export_bundle(old, encoder(), flow(), what("new"))
    assert read_bundle(old).manifest.name == "new"
    assert [path.name for path in old.parent.iterdir()] == ["bundle"]


def test_a_new_bundle_replaces_the_old_one_whole(old):
    for leftover in ("bundle.partial", "bundle.replaced"):
        old.with_name(leftover).mkdir()
        (old.with_name(leftover) / "rest-of-a-crash.onnx").write_bytes(b"?")
    bundle = export_bundle(old, encoder(), flow(), what("new"))
    assert sorted(path.name for path in old.parent.iterdir()) == ["bundle"]
    assert sorted(path.relative_to(old).as_posix() for path in old.rglob("*") if path.is_file()) == [
        "MODEL_CARD.md",
        "decoder.onnx",
        "encoder.onnx",
        "golden.npz",
        "inverse.onnx",
        "manifest.json",
        "samples/00-digit-3.png",
        "samples/01-digit-5.png",
        "transform.onnx",
    ]
    again = read_bundle(old)
    assert again.manifest == bundle.manifest
    assert again.directory == bundle.directory == old
    manifest = json.loads((old / "manifest.json").read_text())
    assert (manifest["name"], manifest["version"], manifest["family"]) == ("new", "7", "iin")
    assert manifest["latent_shape"] == [4]
    assert manifest["round_trip_error"] < 1e-5
    assert manifest["provenance"]["seed"] == 5
    assert manifest["provenance"]["versions"]["torch"] == version("torch")
    assert manifest["log_likelihood_quantiles"]["values"][0] == -9


def test_onnxruntime_may_come_from_its_package_for_gpus(tmp_path, monkeypatch):
    installed = export.version

    def without(library):
        if library == "onnxruntime":  # onnxruntime-gpu is in its place
            raise PackageNotFoundError(library)
        return installed(library)

    monkeypatch.setattr(export, "version", without)
    bundle = export_bundle(tmp_path / "bundle", encoder(), flow(), what())
    assert bundle.manifest.provenance.versions["onnxruntime"] == onnxruntime.__version__


class Louder(Autoencoder):
    """An autoencoder of latents a thousand times as large."""

    def posterior(self, images):
        mean, log_variance = super().posterior(images)
        return 1000 * mean, log_variance


def test_the_round_trip_of_large_latents_is_judged_by_their_size(tmp_path):
    latents = 1000 * what().latents
    louder = flow()
    louder.initialize(latents)
    bundle = export_bundle(tmp_path / "bundle", encoder(Louder), louder, replace(what(), latents=latents))
    assert bundle.manifest.tolerances.round_trip == pytest.approx(1e-5 * 1000, rel=0.05)
    assert 0 < bundle.manifest.round_trip_error < bundle.manifest.tolerances.round_trip
