"""The first update of every stage, against its formulas worked out apart from the loop."""

import math

import pytest
import torch
from iin_training import config
from iin_training.flows import interpretation_flow
from iin_training.losses import pair_nll
from iin_training.models.autoencoder import Autoencoder
from iin_training.models.checks import Findings
from iin_training.models.classifier import Classifier, TrunkClassifier
from iin_training.models.discriminator import PatchDiscriminator
from iin_training.pairs.base import PairBatch
from iin_training.stages.classifiers import train_hidden_classifier, train_judge
from iin_training.stages.first_stage import train_first_stage
from iin_training.stages.transform import train_transform
from torch.nn import functional

from tests.training.conftest import CLASSES, Blobs
from tests.training.test_latents import FACTORS, SIZES, frozen, start
from tests.training.test_resuming import metrics

RATE, SCALE = 0.1, 0.2
# Adam's first update is as large as the learning rate whatever the gradient, unless that is as small as its epsilon.
ONE_UPDATE = config.Optimiser(steps=1, batch_size=16, learning_rate=RATE, schedule="linear_end", clip_norm=1e-8)


def updated(model, loss, kind=torch.optim.Adam, **settings):
    """The state of `model` after an update with clipped gradients."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = kind(trained, lr=RATE, betas=ONE_UPDATE.betas, fused=True, **settings)
    loss.backward(inputs=trained)
    torch.nn.utils.clip_grad_norm_(trained, ONE_UPDATE.clip_norm)
    optimiser.step()
    return model.state_dict()


class Various:
    """Pairs of noise that share any set of factors; every other pair says how alike they are."""

    concepts = ("digit",)

    def draw(self, count, factors, generator):
        images_a, images_b = torch.rand(2, count, 1, 8, 8, generator=generator)
        shared = torch.rand(count, len(factors), generator=generator) < 0.5
        similarity = 0.9 * torch.rand(count, generator=generator)
        similarity[::2] = torch.nan
        return PairBatch(images_a, images_b, shared, similarity)


@pytest.mark.parametrize("noise", [0.0, 0.7])
@pytest.mark.parametrize(
    "findings", [None, Findings(0, 1, torch.linspace(0, 1, 8))], ids=["as they are", "dequantised"]
)
def test_t_learns_by_the_pair_loss_of_latents_drawn_from_the_encoder(tmp_path, noise, findings):
    model, run = frozen(samples=True), start(tmp_path)
    settings = config.Transform(blocks=2, hidden=8, depth=1, similarity=0.95, noise=noise, optimiser=ONE_UPDATE)
    result = train_transform(settings, model, SIZES, Various(), run, findings)

    def drawn(count, generator):
        pairs = Various().draw(count, FACTORS, generator)
        mean, log_variance = model.posterior(torch.cat([pairs.images_a, pairs.images_b])).unbind(dim=1)
        latents = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=generator)
        if findings is not None:
            latents = latents + findings.noise_scale * torch.randn(mean.shape, generator=generator)
        return latents, pairs

    with run.fixed_randomness("transform"):
        flow = interpretation_flow(8, blocks=2, hidden=8, depth=1, seed=run.seed_of("permutation"))
    initial, _ = drawn(1024, run.generator("initial"))
    flow.initialize(initial)
    generator = run.generator("transform", 0)
    latents, pairs = drawn(16, generator)
    if noise:
        latents = latents + noise * initial.std(dim=0) * torch.randn(latents.shape, generator=generator)
    (a, log_abs_det_a), (b, log_abs_det_b) = (flow(side) for side in latents.chunk(2))
    similarity = torch.where(pairs.similarity.isnan(), 0.95, pairs.similarity)
    sizes = list(SIZES.values())
    loss = pair_nll(a, b, log_abs_det_a, log_abs_det_b, sizes=sizes, shared=pairs.shared, similarity=similarity).mean()
    (told,) = metrics(tmp_path, "transform")
    assert told["loss"] == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(result.state_dict(), updated(flow, loss), atol=1e-5, rtol=0)


def pictures(count, generator):
    return Blobs().batch(count, generator)[0]


@pytest.mark.parametrize("weight", [0.0, 0.5], ids=["alone", "against an adversary"])
def test_the_first_stage_learns_by_its_bound_of_noisy_latents_and_by_what_deceives_the_adversary(tmp_path, weight):
    run = start(tmp_path)
    against = config.Adversary(weight=weight, start=0.0, width=4, stages=2)
    settings = config.Autoencoder(width=4, latent_size=4, noise_scale=SCALE, adversary=against, optimiser=ONE_UPDATE)
    result = train_first_stage(settings, pictures, image_shape=(3, 8, 8), run=run)

    with run.fixed_randomness("first_stage"):
        model = Autoencoder(image_size=8, channels=3, width=4, latent_size=4)
        adversary = PatchDiscriminator(channels=3, width=4, stages=2)
    model.log_scale.data.fill_(math.log(SCALE))
    model.log_scale.requires_grad_(False)
    generator = run.generator("first_stage", 0)
    images = pictures(16, generator)
    mean, log_variance = model.posterior(images)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    decoded = model.decode(posterior.mean + posterior.stddev * torch.randn(16, 4, generator=generator))
    error = (decoded - images).abs().mean()
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0, 1)).sum(dim=1).mean()
    reconstruction = error / SCALE + math.log(2 * SCALE)
    loss = reconstruction + kl / (3 * 8 * 8)
    expected, whole = {"loss": loss, "error": error, "kl": kl}, loss
    if weight:
        expected["deceived"] = deceived = -adversary(decoded).mean()
        norms = [
            torch.autograd.grad(term, model.last_weight, retain_graph=True)[0].norm()
            for term in (reconstruction, deceived)
        ]
        whole = loss + weight * norms[0] / (norms[1] + 1e-4) * deceived
        real, made = adversary(images), adversary(decoded.detach())
        expected["adversary"] = ((1 - real).clamp_min(0).mean() + (1 + made).clamp_min(0).mean()) / 2
    (told,) = metrics(tmp_path, "first_stage")
    assert {name: told[name] for name in told if name not in ("stage", "step")} == pytest.approx(
        {name: value.item() for name, value in expected.items()}, rel=1e-4
    )
    torch.testing.assert_close(result.state_dict(), updated(model, whole), atol=1e-5, rtol=0)


def judge():
    return Classifier(image_size=8, channels=3, classes=CLASSES, width=4)


def classifier():
    return TrunkClassifier(image_size=8, channels=3, classes=CLASSES, width=4, latent_size=4)


@pytest.mark.parametrize("network", [judge, classifier], ids=lambda network: network.__name__)
def test_classifiers_learn_by_cross_entropy_with_clipped_gradients(tmp_path, network):
    run, stage = start(tmp_path), network.__name__
    if network is judge:
        settings = config.Judge(width=4, optimiser=ONE_UPDATE)
        result = train_judge(settings, Blobs().batch, image_shape=(3, 8, 8), classes=CLASSES, run=run)
    else:
        settings = config.HiddenClassifier(width=4, latent_size=4, optimiser=ONE_UPDATE)
        result = train_hidden_classifier(settings, Blobs().batch, image_size=8, classes=CLASSES, run=run)

    with run.fixed_randomness(stage):
        model = network()
    images, labels = Blobs().batch(16, run.generator(stage, 0))
    with run.fixed_randomness(stage, 0):
        loss = functional.cross_entropy(model(images), labels)
    (told,) = metrics(tmp_path, stage)
    assert told["loss"] == pytest.approx(loss.item(), rel=1e-4)
    expected = updated(model, loss, torch.optim.AdamW, weight_decay=0.01)
    torch.testing.assert_close(result.state_dict(), expected, atol=1e-5, rtol=0)
