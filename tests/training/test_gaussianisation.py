"""Factors become standard normal, each by itself."""

import math

import pytest
import torch
from iin_bundle import FactorLayout
from iin_training import config
from iin_training.evaluation import swapped
from iin_training.flows import interpretation_flow
from iin_training.losses import factor_nll
from iin_training.models.checks import Findings
from iin_training.models.frozen import FrozenModel
from iin_training.pairs.base import PairBatch
from iin_training.stages import gaussianisation
from iin_training.stages.gaussianisation import gaussianise
from scipy import stats
from torch import nn

from tests.training.test_latents import start

SIZES = {"residual": 5, "digit": 3}
LAYOUT = FactorLayout.from_sizes(SIZES)
MODEL = FrozenModel(nn.Flatten(), image_shape=(1, 2, 4), value_range=(-20.0, 20.0))
CENTRES = torch.tensor([[0.6, 0.0, 0.0], [-0.3, 0.5, 0.0], [-0.3, -0.5, 0.2]])


def transform(seed=0):
    torch.manual_seed(seed)
    return interpretation_flow(8, blocks=1, hidden=4, depth=1, seed=seed).eval().requires_grad_(False)


def factors(count, generator):
    """Skewed ones, and three narrow clusters."""
    residual = torch.rand(count, 5, generator=generator).square() + 2
    noise = 0.1 * torch.randn(count, 3, generator=generator)
    return torch.cat([residual, CENTRES[torch.randint(3, (count,), generator=generator)] + noise], dim=1)


class Clusters:
    """Pairs of pictures whose factors T has made so."""

    concepts = ("digit",)

    def __init__(self, draws=10**6):
        self.left = draws

    def digest(self):
        return "clusters"

    def draw(self, count, names, generator):
        self.left -= 1
        assert self.left >= 0
        sides = (transform().inverse(factors(count, generator))[0].view(count, 1, 2, 4) for _ in "ab")
        return PairBatch(*sides, torch.zeros(count, len(names), dtype=torch.bool))


def settings(steps=800, blocks=3, **changed):
    schedule = config.Optimiser(steps=steps, batch_size=32, learning_rate=3e-3)
    return config.Transform(blocks=1, hidden=32, depth=2, gaussianise=blocks, optimiser=schedule, **changed)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run = start(tmp_path_factory.mktemp("run"))
    return gaussianise(settings(), MODEL, transform(), SIZES, Clusters(), run)


@torch.no_grad()
def test_factors_are_much_closer_to_standard_normal(made):
    latents = transform().inverse(factors(4000, torch.Generator().manual_seed(5)))[0]
    plain, found = transform()(latents), made(latents)
    for before, after in zip(plain[0].T, found[0].T, strict=True):
        assert stats.kstest(after, "norm").statistic < 0.16 < stats.kstest(before, "norm").statistic
    # Better, in nats, than scaling and shifting every dimension alone could be.
    scaled = 0.5 * (plain[0].var(dim=0).log() + math.log(2 * math.pi) + 1).sum() - plain[1].mean()
    assert factor_nll(*found).mean() < scaled - 2


@torch.no_grad()
def test_no_swap_changes(made):
    latents = transform().inverse(factors(64, torch.Generator().manual_seed(6)))[0]
    for part in LAYOUT:
        expected, found = (
            flow.inverse(swapped(flow(latents)[0], flow(latents.flip(0))[0], LAYOUT.slice(part.name)))[0]
            for flow in (transform(), made)
        )
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_samples_lie_in_the_clusters(made):
    torch.manual_seed(1)

    def missed(flow):
        drawn = transform()(flow.inverse(torch.randn(2000, 8))[0])[0][:, LAYOUT.slice("digit")]
        return float((torch.cdist(drawn, CENTRES).amin(dim=1) > 0.35).float().mean())

    assert missed(made) < 0.15
    assert missed(transform()) > 0.5


def test_a_run_that_was_cut_goes_on_to_the_same_result(tmp_path, monkeypatch):
    whole = gaussianise(settings(steps=60), MODEL, transform(), SIZES, Clusters(), start(tmp_path / "whole"))
    made, update = 0, gaussianisation.update

    def cut(*given):
        nonlocal made
        made += 1
        if made == 23:
            raise KeyboardInterrupt
        update(*given)

    monkeypatch.setattr(gaussianisation, "update", cut)
    with pytest.raises(KeyboardInterrupt):
        gaussianise(settings(steps=60), MODEL, transform(), SIZES, Clusters(), start(tmp_path / "cut"))
    monkeypatch.setattr(gaussianisation, "update", update)
    resumed = gaussianise(settings(steps=60), MODEL, transform(), SIZES, Clusters(), start(tmp_path / "cut"))
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    done = gaussianise(settings(steps=60), MODEL, transform(), SIZES, Clusters(draws=0), start(tmp_path / "cut"))
    assert torch.equal(done(torch.ones(2, 8))[0], whole(torch.ones(2, 8))[0])


def test_another_t_has_blocks_of_its_own(tmp_path):
    gaussianise(settings(steps=4), MODEL, transform(), SIZES, Clusters(), start(tmp_path))
    with pytest.raises(ValueError, match="transform"):
        gaussianise(settings(steps=4), MODEL, transform(seed=1), SIZES, Clusters(), start(tmp_path))


def test_no_more_is_drawn_than_t_has_seen(tmp_path):
    pairs = Clusters(draws=1)
    gaussianise(settings(steps=1), MODEL, transform(), SIZES, pairs, start(tmp_path))
    assert pairs.left == 0


@torch.no_grad()
@pytest.mark.parametrize("how", ["noise", "findings"])
def test_noise_that_t_was_trained_with_is_there_too(tmp_path, how):
    findings = Findings(0, 1, torch.full((8,), 5.0)) if how == "findings" else None
    changed = {"noise": 20.0} if how == "noise" else {}
    with torch.enable_grad():
        flow = gaussianise(settings(**changed), MODEL, transform(), SIZES, Clusters(), start(tmp_path), findings)
    latents = transform().inverse(factors(4000, torch.Generator().manual_seed(5)))[0]
    assert flow(latents)[0].std(dim=0).max() < 0.6  # where no noise is added
