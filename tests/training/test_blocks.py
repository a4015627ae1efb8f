"""What single blocks promise beyond the laws: initialisation and sizes."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from iin_training.flows import ActNorm, DoubleCoupling, Flow, Permutation, interpretation_flow


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    rows=st.integers(2, 50),
    scale=st.floats(0.1, 100),
    offset=st.floats(-100, 100),
    seed=st.integers(0, 2**31),
)
def test_actnorm_starts_with_zero_mean_and_unit_variance(rows, scale, offset, seed):
    steps = torch.arange(rows, dtype=torch.float64)[:, None]
    batch = offset + scale * (steps + 0.5 * torch.rand(rows, 3, generator=torch.Generator().manual_seed(seed)))
    block = ActNorm(3).double()
    block.initialize(batch)
    std, mean = torch.std_mean(block(batch)[0], dim=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-6)
    torch.testing.assert_close(std, torch.ones_like(std), rtol=1e-6, atol=0)


def test_actnorm_survives_a_dimension_that_never_varies():
    block = ActNorm(2)
    batch = torch.stack([torch.full((8,), 3.0), torch.linspace(-1, 1, 8)], dim=1)
    block.initialize(batch)
    y, log_abs_det = block(batch)
    assert torch.isfinite(y).all()
    assert torch.isfinite(log_abs_det).all()
    torch.testing.assert_close(y[:, 0], torch.zeros(8))
    torch.testing.assert_close(block.inverse(y)[0], batch)


def test_a_flow_initialises_every_block_on_what_reaches_it():
    torch.manual_seed(0)
    flow = interpretation_flow(4, blocks=3, hidden=8, depth=1, seed=0)
    batch = 5 + 3 * torch.randn(64, 4)
    flow.initialize(batch)
    for block in flow.blocks:
        output, _ = block(batch)
        if isinstance(block, ActNorm):
            std, mean = torch.std_mean(output, dim=0)
            torch.testing.assert_close(mean, torch.zeros(4), rtol=0, atol=1e-4)
            torch.testing.assert_close(std, torch.ones(4), rtol=0, atol=1e-4)
        batch = output


def test_the_papers_network_has_the_papers_number_of_parameters():
    flow = interpretation_flow(64, blocks=12, hidden=512, depth=3, seed=0)
    assert sum(parameter.numel() for parameter in flow.parameters()) == 26_815_488


def test_an_interpretation_flow_repeats_its_three_blocks():
    flow = interpretation_flow(6, blocks=4, hidden=8, depth=2, seed=3)
    assert [type(block) for block in flow.blocks] == [ActNorm, DoubleCoupling, Permutation] * 4
    one = interpretation_flow(6, blocks=1, hidden=8, depth=2, seed=3)
    count = sum(p.numel() for p in flow.parameters())
    assert count == 4 * sum(p.numel() for p in one.parameters())


def test_permutations_are_decided_by_the_seed():
    first, again, other = (
        interpretation_flow(64, blocks=1, hidden=8, depth=1, seed=seed).blocks[2].order for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.sort().values.tolist() == list(range(64))


def test_successive_permutations_of_a_flow_differ():
    flow = interpretation_flow(64, blocks=3, hidden=8, depth=1, seed=0)
    orders = [tuple(block.order.tolist()) for block in flow.blocks if isinstance(block, Permutation)]
    assert len(set(orders)) == 3


def test_a_coupling_scales_by_at_most_e_a_half_step():
    torch.manual_seed(0)
    block = DoubleCoupling(4, hidden=8, depth=1)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.mul_(1000)
    _, log_abs_det = block(torch.randn(16, 4))
    assert float(log_abs_det.detach().abs().max()) <= 4 + 1e-6


def test_a_flow_of_spatial_latents_works_on_them_row_by_row():
    batch = torch.randn(9, 2, 3, 2)
    flow = interpretation_flow((2, 3, 2), blocks=2, hidden=8, depth=1, seed=0)
    flow.initialize(batch)
    of_vectors = Flow(list(flow.blocks)[1:])
    for found, expected in zip(flow(batch), of_vectors(batch.flatten(1)), strict=True):
        assert torch.equal(found, expected)
    assert flow.inverse(torch.randn(4, 12))[0].shape == (4, 2, 3, 2)


def test_flat_latents_need_no_flattening():
    flow = interpretation_flow((6,), blocks=1, hidden=8, depth=1, seed=0)
    assert [type(block) for block in flow.blocks] == [ActNorm, DoubleCoupling, Permutation]
