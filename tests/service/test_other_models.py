"""Bundles of models of other kinds are exported, read and served: spatial latents, grey pictures, heads, ONNX files."""

import asyncio
import threading
import warnings

import numpy as np
import pytest
import torch
from iin_api.v1 import interpretation_pb2 as pb
from iin_bundle import FactorLayout, check_golden, read_bundle
from iin_service import analysis, responses
from iin_service.edits import Edit, Replace, Resample
from iin_service.engine import Engine
from iin_service.errors import InvalidInput, Unsupported
from iin_service.graphs import Compute
from iin_service.inputs import InputReader
from iin_service.items import Given, Trace, Wanted
from iin_service.sessions import Sessions
from iin_training.evaluation import Evaluation
from iin_training.export import Exported, export_bundle
from iin_training.flows import interpretation_flow
from iin_training.models.checks import check_interpretable
from iin_training.models.cut import cut
from iin_training.models.frozen import FrozenModel
from iin_training.models.onnx_model import OnnxModule
from PIL import Image
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies


class Encoder(nn.Module):
    """Means and log-variances of latents (3, 4, 4) of colour pictures 8x8."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, stride=2, padding=1)

    def forward(self, images):
        mean, log_variance = self.conv(images).chunk(2, dim=1)
        return mean, log_variance - 3


def decoder():
    return nn.Sequential(nn.ConvTranspose2d(3, 3, 4, stride=2, padding=1), nn.Tanh())


def classifier():
    """A classifier of grey pictures 6x10."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(45, 4)
    )


def of_torch(folder):
    return FrozenModel(Encoder(), decoder=decoder(), image_shape=(3, 8, 8), value_range=(-1.0, 1.0))


def of_files(folder):
    parts = {"encoder": (FrozenModel(Encoder(), image_shape=(3, 8, 8), value_range=(-1, 1)).networks()["encoder"], 8)}
    parts |= {"decoder": (decoder(), 4), "head": (nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), 4)}
    files = {}
    for name, (network, size) in parts.items():
        torch.onnx.export(
            network.eval(),
            (torch.zeros(2, 3, size, size),),
            folder / f"{name}.onnx",
            dynamic_shapes=({0: torch.export.Dim("rows", min=1)},),
            verbose=False,
        )
        files[name] = OnnxModule(folder / f"{name}.onnx")
    return FrozenModel(**files, image_shape=(3, 8, 8), value_range=(-1.0, 1.0))


def of_a_layer(folder):
    encoder, head = cut(classifier(), "2", image_shape=(1, 6, 10))
    return FrozenModel(encoder, head=head, image_shape=(1, 6, 10), value_range=(0.0, 255.0))


KINDS = {"torch modules": of_torch, "ONNX files": of_files, "a classifier's layer": of_a_layer}


class Served:
    """A model, its T, and the engine on the bundle of both."""

    def __init__(self, name, folder):
        torch.manual_seed(0)
        self.model = KINDS[name](folder)
        low, high = self.model.value_range
        self.images = low + (high - low) * torch.rand(40, *self.model.image_shape).round(decimals=2)
        check_interpretable(self.model, [self.images])
        latents = self.model.encode(self.images)
        self.transform = interpretation_flow(self.model.latent_shape, blocks=2, hidden=16, depth=1, seed=0)
        self.transform.initialize(latents)
        self.transform.eval().requires_grad_(False)
        what = Exported(
            name=name,
            version="1",
            layout=FactorLayout.from_sizes({"residual": self.model.size - 5, "shape": 5}),
            evaluation=Evaluation({}, np.linspace(-200, -100, 50)),
            latents=latents,
            images=self.images,
            captions=["first", "second"],
            recipe="other",
            seed=0,
            data_set="noise",
            data_set_sha256="0" * 64,
        )
        export_bundle(folder / "bundle", self.model, self.transform, what)
        self.bundle = read_bundle(folder / "bundle")
        sessions = Sessions(self.bundle, threads=1, gpu=False)
        check_golden(self.bundle, sessions.run)
        self.engine = Engine(self.bundle.manifest, sessions.run, Compute())
        self.reader = InputReader(self.bundle.manifest, self.engine.compute)

    def interpret(self, *given):
        return asyncio.run(self.engine.interpret(list(given), Trace()))

    def edit(self, edit, targets, *, images=True):
        return asyncio.run(self.engine.edit([targets], [edit], Wanted(images=images), Trace()))


@pytest.fixture(scope="module", params=KINDS)
def served(request, tmp_path_factory):
    return Served(request.param, tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module", params=["ONNX files", "a classifier's layer"])
def headed(request, tmp_path_factory):
    """With a head."""
    return Served(request.param, tmp_path_factory.mktemp("headed"))


def test_the_manifest_describes_the_model(served):
    manifest, model = served.bundle.manifest, served.model
    assert (manifest.image.shape, manifest.latent_shape) == (model.image_shape, model.latent_shape)
    assert (manifest.image.minimum, manifest.image.maximum) == model.value_range
    assert len(manifest.latent_shape) == 3
    assert set(manifest.graphs) == {"transform", "inverse", *model.networks()}
    shapes = {spec.name: spec.shape for spec in manifest.graphs["inverse"].outputs}
    assert shapes == {"latent": ("batch", *model.latent_shape), "log_abs_det": ("batch",)}


def test_what_is_served_is_what_the_networks_compute(served):
    model, found = served.model, served.interpret(Given("image", served.images.numpy(), "inputs"))
    latents = model.encode(served.images)
    factors, log_det = served.transform(latents)
    expected = -0.5 * (factors.square() + np.log(2 * np.pi)).sum(dim=1) + log_det
    np.testing.assert_allclose(found.latents, latents, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.factors, factors, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.log_likelihoods, expected, rtol=1e-3, atol=1e-2)
    if model.head is None:
        assert found.probabilities is None
    else:
        np.testing.assert_allclose(found.probabilities, model.head(latents), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.probabilities.sum(axis=1), np.ones(40), rtol=1e-5)


def test_image_latent_and_factors_lead_to_one_interpretation(served):
    whole = served.interpret(Given("image", served.images.numpy(), "inputs"))
    for kind, items in (("latent", whole.latents), ("factors", whole.factors)):
        found = served.interpret(Given(kind, items, "inputs"))
        np.testing.assert_allclose(found.latents, whole.latents, atol=1e-4)
        np.testing.assert_allclose(found.factors, whole.factors, atol=1e-3)


def test_edits_are_decoded_where_there_is_a_decoder(served):
    targets = Given("image", served.images[:3].numpy(), "targets")
    edit = Edit("shape", Replace(targets, 1.0))
    if served.model.has_decoder:
        expected = served.model.decode(served.model.encode(served.images[:3]))
        np.testing.assert_allclose(served.edit(edit, targets).images, expected, atol=1e-3)
    else:
        with pytest.raises(Unsupported, match="no decoder, so it gives no images"):
            served.engine.check(Wanted())


def test_spatial_latents_and_preview_files_are_read_from_requests(served):
    async def read(message):
        return await served.reader.inputs([message], "inputs", resize=False, trace=Trace())

    latents = served.model.encode(served.images[:2]).numpy()
    message = pb.Input(latent=pb.Tensor(shape=latents.shape, data=latents.tobytes()))
    (given,) = asyncio.run(read(message))
    assert np.array_equal(given.items, latents)
    preview = served.bundle.directory / "samples/00-first.png"
    channels, height, width = served.model.image_shape
    with Image.open(preview) as picture:
        assert (picture.size, picture.mode) == ((width, height), "RGB" if channels == 3 else "L")
    (given,) = asyncio.run(read(pb.Input(encoded_image=preview.read_bytes())))
    low, high = served.model.value_range
    np.testing.assert_allclose(given.items, served.images[:1], atol=0.51 / 255 * (high - low))


def test_answers_and_description_hold_spatial_latents(served):
    found = served.interpret(Given("image", served.images[:2].numpy(), "inputs"))
    answer = responses.interpretation(found, Trace())
    assert tuple(answer.latents.shape) == (2, *served.model.latent_shape)
    assert answer.HasField("probabilities") == (served.model.head is not None)
    described = responses.model(served.bundle.manifest)
    assert tuple(described.latent_shape) == served.model.latent_shape
    assert {graph.role for graph in described.graphs} == set(served.bundle.manifest.graphs)


def respond(served, *given, **how):
    how = {"draws": 40, "seed": 3, "temperature": 1.0, "trace": Trace()} | how

    async def run():
        items, before = await served.engine.classified(given, how["trace"])
        return before, await served.engine.respond(items, before, served.bundle.manifest.layout.names, **how)

    return asyncio.run(run())


def test_an_item_responds_alone_as_in_company(headed):
    images = headed.images[:3].numpy()
    _, alone = respond(headed, Given("image", images[2:], "inputs"))
    _, company = respond(headed, Given("image", images, "inputs"))
    for one, several in zip(alone, company, strict=True):
        np.testing.assert_allclose(one.mean_probabilities[0], several.mean_probabilities[2], atol=1e-5)


def test_nothing_changes_without_temperature_at_the_origin(headed):
    origin = Given("factors", np.zeros((1, headed.bundle.manifest.size), np.float32), "inputs")
    _, found = respond(headed, origin, temperature=0.0)
    for one in found:
        assert (one.class_changes, one.class_deviations) == (0, 0)
        np.testing.assert_allclose(one.probability_deviations, 0, atol=1e-6)


def test_an_analysis_is_not_drawn_up_in_the_event_loop(headed, monkeypatch):
    seen, function = [], analysis._response

    def watched(*arguments):
        seen.append(threading.current_thread() is threading.main_thread())
        return function(*arguments)

    monkeypatch.setattr(analysis, "_response", watched)
    respond(headed, Given("image", headed.images[:1].numpy(), "inputs"))
    assert seen == [False, False]


def test_an_analysis_that_overflows_is_the_callers_mistake_and_prints_nothing(headed):
    with warnings.catch_warnings(action="error"), pytest.raises(InvalidInput) as caught:
        respond(headed, Given("image", headed.images[:1].numpy(), "inputs"), temperature=3e38)
    assert caught.value.field == "temperature"


def test_a_model_without_a_decoder_edits_and_walks_without_images(tmp_path):
    served = Served("a classifier's layer", tmp_path)
    images = served.images[:2].numpy()
    edit = Edit("shape", Resample(1, 1.0))
    found = served.edit(edit, Given("image", images, "targets"), images=False)
    assert found.images is None
    assert found.probabilities.shape == (2, 4)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
