"""T in int8: every item is answered alike in any company, and a half-step is undone by what did it."""

import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from iin_bundle import check_golden, read_bundle
from iin_bundle.factors import FactorLayout
from iin_training.evaluation import Evaluation
from iin_training.export import Exported, export_bundle
from iin_training.flows import interpretation_flow
from iin_training.graphs import ExportError, open_runner
from iin_training.models.frozen import FrozenModel
from iin_training.pipeline import run_recipe
from iin_training.quantised_flow import QuantisedFlow, quantisation_figures
from rich.console import Console
from torch import nn

BATCHES = (1, 3, 8, 32, 64)
SHAPES = {"even": (64,), "odd": (7,), "spatial": (2, 3, 3)}


def latents_like(shape, count=1000, seed=1):
    return 2 * torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed)) + 1


def flow_of(shape, *, hidden=40):
    """An untrained T for `latents_like`, ActNorm apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = interpretation_flow(shape, blocks=3, hidden=hidden, depth=2, seed=0)
    flow.initialize(latents_like(shape))
    return flow.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=SHAPES)
def both(request):
    """T, and T in int8."""
    flow = flow_of(SHAPES[request.param])
    return flow, QuantisedFlow(flow, latents_like(SHAPES[request.param]))


def shape_of(flow):
    return getattr(flow.blocks[0], "shape", None) or tuple(flow.blocks[0].shift.shape)


@pytest.mark.parametrize("inverse", [False, True], ids=["transform", "inverse"])
def test_an_item_gets_the_same_bits_alone_and_in_any_batch(both, inverse):
    flow, quantised = both
    latents = latents_like(shape_of(flow), count=256, seed=2)
    items, direction = (quantised(latents)[0], quantised.inverse) if inverse else (latents, quantised.forward)
    alone = [torch.cat(column) for column in zip(*(direction(item[None]) for item in items), strict=True)]
    neighbours = torch.Generator().manual_seed(3)
    for batch in BATCHES:
        for _ in range(4):
            rows = torch.randint(len(items), (batch,), generator=neighbours)
            for found, expected in zip(direction(items[rows]), alone, strict=True):
                assert torch.equal(found, expected[rows])


def test_products_are_those_of_bytes_and_nothing_else_is_quantised(both, tmp_path):
    _, quantised = both
    for inverse in (False, True):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "as_run.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        model = quantised.graph(inverse=inverse).SerializeToString()
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        kinds = [node.op_type for node in onnx.load(tmp_path / "as_run.onnx").graph.node]
        assert kinds.count("QGemm") == 3 * 2 * 2 * 3  # blocks, half-steps, nets, layers
        assert kinds.count("QuantizeLinear") == 3 * 2 * (1 + 2 * 2)  # the input once, and what two hidden layers give
        assert not {"Gemm", "FusedGemm", "MatMul", "DequantizeLinear"} & set(kinds)


def test_both_directions_have_the_same_weights_and_scales(both):
    _, quantised = both

    def constants(inverse):
        tensors = quantised.graph(inverse=inverse).graph.initializer
        numbers = [onnx.numpy_helper.to_array(tensor) for tensor in tensors]
        eight_bit = [array for array in numbers if array.dtype in (np.int8, np.uint8, np.int32)]
        return sorted(array.tobytes() for array in eight_bit if array.any())

    assert constants(inverse=True) == constants(inverse=False)


def test_round_trip_and_likelihood_stay_near_those_of_float32(both):
    flow, quantised = both
    latents = latents_like(shape_of(flow), count=2000, seed=4)
    figures = {name: figure.value for name, figure in quantisation_figures(flow, quantised, latents).items()}
    assert figures["int8_round_trip_mean"] < 1e-4
    assert figures["int8_round_trip_broken"] < 0.02
    assert 0 < figures["int8_log_likelihood_error"] < 0.2
    assert figures["int8_log_likelihood_error"] <= figures["int8_log_likelihood_worst"] < 2
    difference = (quantised(latents)[0] - flow(latents)[0]).abs()
    assert 0 < float(difference.mean()) < 0.03


def test_latents_beyond_the_training_pictures_stay_finite_and_come_back(both):
    flow, quantised = both
    latents = 5 * latents_like(shape_of(flow), count=200, seed=5)
    back = quantised.inverse(quantised(latents)[0])[0]
    assert float((back - latents).abs().mean()) < 0.01


def exported(directory, quantised):
    model = FrozenModel(nn.Flatten(), image_shape=(1, 8, 8), value_range=(-1.0, 1.0))
    what = Exported(
        name="tiny",
        version="1",
        layout=FactorLayout.from_sizes({"residual": 32, "digit": 32}),
        evaluation=Evaluation({}, np.linspace(-9, -3, 50)),
        latents=latents_like((64,), count=4000, seed=6),
        images=2 * torch.rand(40, 1, 8, 8) - 1,
        captions=["digit-3"],
        recipe="tiny",
        seed=5,
        data_set="noise",
        data_set_sha256="0" * 64,
    )
    return export_bundle(directory, model, quantised, what)


@pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
def test_a_bundle_in_int8_states_what_was_measured_and_passes_its_own_checks(tmp_path, monkeypatch):
    quantised = QuantisedFlow(flow_of((64,)), latents_like((64,)))
    exported(tmp_path / "bundle", quantised)
    bundle = read_bundle(tmp_path / "bundle")
    runs = {role: open_runner(bundle.graph_path(role)) for role in bundle.manifest.graphs}
    errors = check_golden(bundle, lambda role, items: runs[role](items))
    assert errors["round trip"] < 1e-4  # the recorded latents are none of those that go over an edge
    error, allowed = bundle.manifest.round_trip_error, bundle.manifest.tolerances.round_trip
    latents = latents_like((64,), count=4000, seed=6).numpy()
    found = float(np.abs(runs["inverse"](runs["transform"](latents)[0])[0] - latents).max())
    assert error == found
    assert max(1e-4, error) <= allowed <= max(1e-4, 1.5 * error)

    monkeypatch.setattr("iin_training.export.INT8_ROUND_TRIP_SHARE", 1e-9)
    with pytest.raises(ExportError, match=r"inverse\(transform\(z\)\) differs from z"):
        exported(tmp_path / "refused", quantised)
    assert not (tmp_path / "refused").exists()


@pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
def test_a_finished_run_is_quantised_without_training_again(brief_recipe, digits_bundle, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(digits_bundle.parent, run)
    checkpoints = {path: path.stat().st_mtime_ns for path in (run / "checkpoints").rglob("*")}
    before = read_bundle(run / "bundle").manifest
    monkeypatch.setattr("iin_training.judged_digits.PAIRS", 500)
    recipe = replace(brief_recipe, bundle=replace(brief_recipe.bundle, precision="int8"))
    after = run_recipe(recipe, run, Console(quiet=True)).manifest
    assert {path: path.stat().st_mtime_ns for path in (run / "checkpoints").rglob("*")} == checkpoints
    assert after.graphs["transform"].file.bytes < 0.6 * before.graphs["transform"].file.bytes
    assert after.graphs["encoder"].file.sha256 == before.graphs["encoder"].file.sha256
    assert "int8_log_likelihood_error" in after.evaluation
    assert "int8_log_likelihood_error" not in before.evaluation
    judged = after.evaluation["held_out_log_likelihood"].value - before.evaluation["held_out_log_likelihood"].value
    assert 0 < abs(judged) <= after.evaluation["int8_log_likelihood_error"].value + 1e-6
