"""The graphs of a real bundle in plain onnxruntime, and what stands beside them."""

import numpy as np
import onnxruntime
import pytest
from iin_bundle import check_golden, read_bundle
from iin_training.graphs import open_runner
from PIL import Image

ROLES = ("encoder", "transform", "inverse", "decoder")


@pytest.fixture(scope="module")
def bundle(digits_bundle):
    return read_bundle(digits_bundle)


@pytest.fixture(scope="module")
def sessions(digits_bundle):
    return {
        role: onnxruntime.InferenceSession(digits_bundle / f"{role}.onnx", providers=["CPUExecutionProvider"])
        for role in ROLES
    }


@pytest.fixture(scope="module")
def images(digits_bundle):
    """Thirty-two pictures: the bundle's previews again and again, each time a little darker."""
    pictures = [np.asarray(Image.open(path), dtype=np.float32) for path in sorted(digits_bundle.glob("samples/*.png"))]
    rows = [pictures[i % len(pictures)] * (1 - i / 64) / 127.5 - 1 for i in range(32)]
    return np.stack(rows).transpose(0, 3, 1, 2).astype(np.float32)


@pytest.fixture(scope="module")
def inputs(sessions, images):
    """What each graph is given: the outputs of the one before."""
    (latents,) = sessions["encoder"].run(None, {"image": images})
    factors, _ = sessions["transform"].run(None, {"latent": latents})
    return {"encoder": images, "transform": latents, "inverse": factors, "decoder": latents}


@pytest.mark.parametrize("role", ROLES)
def test_names_and_shapes_are_those_of_the_manifest(bundle, sessions, role):
    graph = bundle.manifest.graphs[role]
    for specs, nodes in (
        (graph.inputs, sessions[role].get_inputs()),
        (graph.outputs, sessions[role].get_outputs()),
    ):
        assert [spec.name for spec in specs] == [node.name for node in nodes]
        assert [list(spec.shape) for spec in specs] == [node.shape for node in nodes]
        assert {node.type for node in nodes} == {"tensor(float)"}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("batch", [1, 3, 32])
def test_a_row_is_answered_alike_whatever_its_batch(sessions, inputs, role, batch):
    name = sessions[role].get_inputs()[0].name
    rows = inputs[role][:batch]
    together = sessions[role].run(None, {name: rows})
    for index in range(batch):
        alone = sessions[role].run(None, {name: rows[index : index + 1]})
        for whole, part in zip(together, alone, strict=True):
            assert whole.shape[0] == batch
            scale = max(1.0, float(np.abs(whole).max()))
            np.testing.assert_allclose(part[0], whole[index], rtol=0, atol=1e-5 * scale)


def test_inverse_undoes_transform_and_so_do_the_log_determinants(sessions, inputs):
    factors, there = sessions["transform"].run(None, {"latent": inputs["transform"]})
    latents, back = sessions["inverse"].run(None, {"factors": factors})
    np.testing.assert_allclose(latents, inputs["transform"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(there + back, np.zeros(32), rtol=0, atol=1e-4)


def test_decoded_pictures_stay_in_the_manifests_range(bundle, sessions, inputs):
    (pictures,) = sessions["decoder"].run(None, {"latent": 3 * inputs["decoder"]})
    assert pictures.shape == (32, *bundle.manifest.image.shape)
    assert float(pictures.min()) >= bundle.manifest.image.minimum
    assert float(pictures.max()) <= bundle.manifest.image.maximum


def test_the_golden_run_agrees_in_every_graph(bundle):
    runs = {role: open_runner(bundle.graph_path(role)) for role in ROLES}
    errors = check_golden(bundle, lambda role, rows: runs[role](rows))
    assert set(errors) == {*ROLES, "round trip"}
    assert all(0 <= error <= 1e-4 for error in errors.values())


def test_the_model_card_lists_every_factor_figure_and_origin(bundle):
    card = (bundle.directory / "MODEL_CARD.md").read_text()
    manifest = bundle.manifest
    for part in manifest.factors:
        assert f"| {part.name} | {part.start} to {part.start + part.size - 1} | {part.size} |" in card
    for name, figure in manifest.evaluation.items():
        assert f"| {name} | {figure.value:.3f} |" in card
        assert figure.meaning in card
    origin = manifest.provenance
    for word in (origin.recipe, origin.git_commit, origin.data_set, origin.data_set_sha256, origin.created):
        assert word in card
    assert f"{manifest.round_trip_error:.2e}" in card


def test_previews_are_pictures_of_the_manifests_size_that_show_several_digits(bundle):
    previews = sorted((bundle.directory / "samples").glob("*.png"))
    assert len(previews) >= 10
    assert {Image.open(path).size for path in previews} == {(bundle.manifest.image.width, bundle.manifest.image.height)}
    captions = {path.stem.split("-", 1)[1] for path in previews}
    assert len(captions) >= 5


def test_the_manifest_tells_where_the_bundle_comes_from(bundle):
    origin = bundle.manifest.provenance
    assert (origin.recipe, origin.seed) == ("digits", 0)
    assert set(origin.versions) >= {"torch", "onnx", "onnxruntime", "numpy"}
    assert len(origin.data_set_sha256) == 64
    assert origin.created.endswith("+00:00")
    assert bundle.manifest.layout.names == ("residual", "digit", "colour")
