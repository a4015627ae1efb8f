"""Models whose latents no flow can learn are refused with a remedy; quiet dimensions are told, and stay lossless."""

import math

import numpy as np
import onnxruntime
import pytest
import torch
from iin_training.flows import interpretation_flow
from iin_training.models.checks import check_interpretable
from iin_training.models.frozen import FrozenModel
from torch import nn
from torch.nn import functional

SHAPE = (1, 4, 4)


class Network(nn.Module):
    """Maps pictures of 16 pixels by `run(self, images)`."""

    def __init__(self, run=lambda self, images: self.mix(images.flatten(1))):
        super().__init__()
        self.mix = nn.Linear(16, 8)
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)
        self.run = run

    def forward(self, images):
        return self.run(self, images)


def mixed(self, images):
    return self.mix(images.flatten(1))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def images():
    return torch.rand(200, *SHAPE)


def model(run=mixed, **parts):
    return FrozenModel(Network(run), image_shape=SHAPE, value_range=(0.0, 1.0), **parts)


def decoder(run=lambda self, latents: torch.sigmoid(latents.repeat(1, 2).unflatten(1, SHAPE))):
    return Network(run)


def test_a_model_with_nothing_wrong_needs_no_noise(images):
    found = check_interpretable(model(decoder=decoder(), head=nn.Linear(8, 3)), [images])
    assert (found.constant, found.repeated) == (0, 0)
    assert torch.equal(found.noise_scale, torch.zeros(8))
    latents = torch.randn(3, 8)
    assert torch.equal(found.dequantised(latents, torch.Generator()), latents)


def test_a_sampling_encoder_needs_no_noise_where_its_distribution_has_some(images):
    def run(self, images):
        mean = torch.cat([self.mix(images.flatten(1)), torch.zeros(len(images), 2)], dim=1)
        return mean, torch.full_like(mean, -2)

    found = check_interpretable(model(run), [images])
    assert (found.constant, found.repeated) == (0, 0)


def broken(name):
    """A model with one thing wrong."""
    return {
        "dropout": lambda: model(lambda self, x: functional.dropout(mixed(self, x), 0.1)),
        "noise": lambda: model(lambda self, x: mixed(self, x) + torch.randn(len(x), 8)),
        "batch statistics": lambda: model(lambda self, x: self.norm(mixed(self, x))),
        "mean of the batch": lambda: model(lambda self, x: mixed(self, x) - mixed(self, x).mean(dim=0)),
        "nan": lambda: model(lambda self, x: mixed(self, x - 0.5).sqrt()),
        "variance for its logarithm": lambda: model(lambda self, x: (mixed(self, x), 300 + 0 * mixed(self, x))),
        "squeezed batch": lambda: model(lambda self, x: mixed(self, x).unflatten(1, (2, 4)).squeeze(0)),
        "shape of the data": lambda: model(lambda self, x: mixed(self, x)[:, : 5 + (len(x) == 1)]),
        "no single image": lambda: model(lambda self, x: mixed(self, x).reshape(2, -1, 8).flatten(0, 1)),
        "constant": lambda: model(lambda self, x: mixed(self, x).clamp_max(-50)),
        "mostly off": lambda: model(lambda self, x: functional.pad(mixed(self, x), (0, 9))),
        "tiny": lambda: model(lambda self, x: 1e-5 * mixed(self, x)),
        "few classes": lambda: model(lambda self, x: functional.one_hot(mixed(self, x).argmax(1), 8).float()),
        "decoder with dropout": lambda: model(
            decoder=decoder(lambda self, z: functional.dropout(torch.sigmoid(z.repeat(1, 2).unflatten(1, SHAPE))))
        ),
        "decoder of levels": lambda: model(decoder=decoder(lambda self, z: 255 * z.repeat(1, 2).unflatten(1, SHAPE))),
        "head of logits": lambda: model(head=nn.Linear(8, 3), head_gives="probabilities"),
        "head of the batch": lambda: model(head=Network(lambda self, z: z - z.mean(dim=0))),
    }[name]()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dropout", r"encoder: expected the same latents for the same batch.*functional\.dropout.*log_variance\)"),
        ("noise", r"encoder: expected the same latents .*an encoder that samples should return \(mean, log_variance\)"),
        ("batch statistics", r"encoder: expected latents for a batch of 1, got: .*let it .*fixed statistics"),
        ("mean of the batch", r"encoder: .* other items of the batch, got a difference of .* alone; .*BatchNorm"),
        ("nan", r"encoder: expected finite latents, got NaN or infinity for \d+ of 200; check its weights"),
        (
            "variance for its logarithm",
            r"encoder: expected finite latents drawn from \(mean, log_variance\), got NaN or",
        ),
        ("squeezed batch", r"encoder: expected shape \[1, 2, 4\] for a batch of 1, got \[2, 4\]; its shape .*squeeze"),
        ("shape of the data", r"encoder: expected shape \[1, 5\] for a batch of 1, got \[1, 6\]"),
        ("no single image", r"encoder: expected latents for a batch of 1, got: .*batches of any size"),
        ("constant", r"images: expected at least 32 with latents of their own, got 1 of 200"),
        (
            "mostly off",
            r"encoder: expected latents that vary .* got 9 of 17 dimensions that are constant over 200 images",
        ),
        ("tiny", r"standard deviations of about 1, got .*e-0.*; multiply them by a constant"),
        ("few classes", r"images: expected at least 32 with latents of their own, got \d of 200"),
        ("decoder with dropout", r"decoder: expected the same images for the same batch"),
        ("decoder of levels", r"decoder: expected images in value_range, \[0, 1\], got \d+% of the values outside"),
        ("head of logits", r"head: expected probabilities in \[0, 1\], got .*head_gives='logits'"),
        ("head of the batch", r"head: expected probabilities that do not depend on the other items"),
    ],
)
def test_what_cannot_be_interpreted_is_refused(name, words, images):
    with pytest.raises(ValueError, match=words):
        check_interpretable(broken(name), [images])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda images: images[:31], r"images: expected at least 32, got 31; give a batch of those T will be trained"),
        (lambda images: images[:, :, :3], r"images: expected float32 images of \(1, 4, 4\), .* got .* of \(1, 3, 4\)"),
        (lambda images: images.double(), r"images: expected float32 images of .*, got torch.float64 of \(1, 4, 4\)"),
        (lambda images: 255 * images, r"images: expected values in \[0, 1\], the model's value_range, got .* to 25\d"),
        (lambda images: images * math.nan, r"images: expected values in \[0, 1\].* got nan to nan"),
        (lambda images: images[:1].expand(200, -1, -1, -1), r"latents of their own, got 1 of 200"),
    ],
)
def test_images_that_tell_nothing_are_refused(change, words, images):
    with pytest.raises(ValueError, match=words):
        check_interpretable(model(), [change(images)])


def test_images_in_parts_tell_the_same(images):
    frozen = model(rectified, decoder=decoder(), head=nn.Linear(8, 3))
    whole, parts = (check_interpretable(frozen, images.split(size)) for size in (len(images), 3))
    assert (whole.constant, whole.repeated) == (parts.constant, parts.repeated)
    assert torch.allclose(whole.noise_scale, parts.noise_scale, rtol=1e-5)
    with pytest.raises(ValueError, match="images: expected at least 32, got 0"):
        check_interpretable(frozen, [])


def rectified(self, images):
    """Eight units, of which one is dead, one fires rarely, and the others are off now and then."""
    return functional.relu(mixed(self, 2 * images - 1) + torch.tensor([-9, -0.7, 0, 0, 0, 0.1, 0.2, 0.3]))


def test_dead_and_resting_units_are_told_with_the_noise_they_need(images):
    frozen = model(rectified)
    latents = frozen.encode(images)
    found = check_interpretable(frozen, [images])
    off = (latents == 0).sum(dim=0)
    assert off[0] == 200
    assert (off[1:] > 2).all()
    assert (off[1:] < 200).all()
    assert (found.constant, found.repeated) == (1, 7)
    std = latents.std(dim=0)
    torch.testing.assert_close(found.noise_scale[1:], 0.05 * std[1:], rtol=0.2, atol=0)
    assert found.noise_scale[0] == pytest.approx(0.05 * float(std[1:].median()), rel=0.2)
    drawn = found.dequantised(latents, torch.Generator().manual_seed(3))
    assert torch.equal(drawn, found.dequantised(latents, torch.Generator().manual_seed(3)))
    torch.testing.assert_close((drawn - latents).std(dim=0), found.noise_scale, rtol=0.2, atol=0)


def test_the_noise_has_the_shape_of_spatial_latents(images):
    frozen = model(lambda self, x: rectified(self, x).unflatten(1, (2, 2, 2)))
    found = check_interpretable(frozen, [images])
    assert found.noise_scale.shape == (2, 2, 2)
    assert found.noise_scale[0, 0, 0] > 0
    latents = frozen.encode(images)
    assert found.dequantised(latents, torch.Generator()).shape == latents.shape


@pytest.mark.filterwarnings("ignore")  # of the exporter's own dependencies
def test_a_flow_trained_with_that_noise_has_bounded_likelihood_and_loses_nothing(images, tmp_path):
    frozen = model(lambda self, x: rectified(self, x)[:, :7])  # an odd number of dimensions, one of them dead
    latents = frozen.encode(images)
    found = check_interpretable(frozen, [images])
    generator = torch.Generator().manual_seed(0)

    def trained(noisy):
        torch.manual_seed(0)
        flow = interpretation_flow(frozen.latent_shape, blocks=3, hidden=16, depth=1, seed=0)

        def draw():
            return found.dequantised(latents, generator) if noisy else latents

        flow.initialize(draw())
        optimiser, losses = torch.optim.Adam(flow.parameters(), lr=5e-3), []
        for _ in range(400):
            factors, log_det = flow(draw())
            loss = (0.5 * factors.square().sum(dim=1) - log_det).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        return flow.eval().requires_grad_(False), min(losses)

    flow, loss = trained(noisy=True)
    # The sum has at least the entropy of the noise, log(scale) + 1/2 a dimension (and the constant left out above).
    bound = float(found.noise_scale.log().sum()) + 0.5 * 7
    assert loss > bound
    assert trained(noisy=False)[1] < loss - 2  # without noise it squeezes on
    factors, log_det = flow(latents)
    assert torch.isfinite(factors).all()
    assert torch.isfinite(log_det).all()
    torch.testing.assert_close(flow.inverse(factors)[0], latents, rtol=0, atol=1e-4)
    torch.onnx.export(
        flow,
        (latents[:2],),
        tmp_path / "transform.onnx",
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "transform.onnx", providers=["CPUExecutionProvider"])
    found_factors, found_log_det = session.run(None, {session.get_inputs()[0].name: latents.numpy()})
    np.testing.assert_allclose(found_factors, factors.numpy(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found_log_det, log_det.numpy(), rtol=1e-3, atol=1e-3)
