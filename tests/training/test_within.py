"""Blocks that act within each factor alone, whatever they are trained for."""

import pytest
import torch
from iin_training.flows import Flow
from iin_training.flows.within import blocks_within
from iin_training.quantised_flow import QuantisedFlow

SIZES = [[4, 2, 6], [5, 3, 4], [1, 1, 3, 2], [2], [1, 1], [7, 1], [1, 1, 1]]


def trained(sizes, steps=20, hidden=16):
    """Blocks after some updates towards anything, in float64."""
    torch.manual_seed(0)
    flow = Flow(blocks_within(sizes, blocks=3, hidden=hidden, depth=2, seed=1)).double()
    batch = 3 * torch.randn(64, sum(sizes), dtype=torch.float64) + 1
    flow.initialize(batch)
    optimiser = torch.optim.Adam(flow.parameters(), lr=0.05)
    mixed = torch.randn(sum(sizes), sum(sizes), dtype=torch.float64)
    for _ in range(steps):
        optimiser.zero_grad()
        (flow(batch)[0] @ mixed - batch.flip(1)).square().mean().backward()
        optimiser.step()
    return flow.requires_grad_(False)


@pytest.mark.parametrize("sizes", SIZES)
def test_no_factor_depends_on_another(sizes):
    flow = trained(sizes)
    z = torch.randn(sum(sizes), dtype=torch.float64)
    factor = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    for direction in (flow, flow.inverse):
        jacobian = torch.autograd.functional.jacobian(lambda x, way=direction: way(x[None])[0][0], z)
        across = factor[:, None] != factor
        assert (jacobian[across] == 0).all()
        expected = torch.linalg.slogdet(jacobian).logabsdet
        assert torch.allclose(direction(z[None])[1][0], expected)
        assert (jacobian.diagonal() - 1).abs().max() > 0.05


@pytest.mark.parametrize("sizes", SIZES)
def test_the_inverse_undoes_them(sizes):
    flow, z = trained(sizes), torch.randn(8, sum(sizes), dtype=torch.float64)
    assert torch.allclose(flow.inverse(flow(z)[0])[0], z)


def test_every_dimension_of_a_factor_learns_from_the_others():
    sizes = [4, 6]
    z = torch.randn(10, dtype=torch.float64)
    flow = trained(sizes)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x[None])[0][0], z)
    for start, end in ((0, 4), (4, 10)):
        assert (jacobian[start:end, start:end] != 0).all()


@pytest.mark.parametrize(("sizes", "hidden"), [([1, 1], 16), ([4, 1, 1, 1], 16), ([4, 2, 1, 3, 1, 1], 4)])
def test_in_int8_they_do_nearly_the_same(sizes, hidden):
    """Outputs that depend on no input have a bias all the same."""
    flow = trained(sizes, hidden=hidden).float()
    latents = 3 * torch.randn(500, sum(sizes)) + 1
    exact, rough = flow(latents), QuantisedFlow(flow, latents)(latents)
    assert (exact[1] - rough[1]).abs().mean() < 0.02
    assert (exact[0] - rough[0]).abs().mean() < 0.05 * exact[0].std()


def test_untouched_they_are_nearly_the_identity_on_normal_factors():
    torch.manual_seed(0)
    flow = Flow(blocks_within([3, 5], blocks=2, hidden=16, depth=1, seed=1))
    z = torch.randn(4000, 8)
    flow.initialize(z)
    with torch.no_grad():
        correlation = torch.corrcoef(torch.cat([z, flow(z)[0]], dim=1).T)[:8, 8:].diagonal()
    assert correlation.min() > 0.9  # each dimension is where it was
