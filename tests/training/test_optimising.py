"""Fewer passes over the same numbers: the result stays what the plain way gives."""

import copy

import pytest
import torch
from iin_training.flows import DoubleCoupling
from iin_training.optimising import update
from torch import nn
from torch.nn import functional


@pytest.mark.parametrize("clip_norm", [0.0, 0.5, 1e6], ids=["off", "clips", "far away"])
def test_an_update_is_clipping_and_then_adam(clip_norm):
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    plain = copy.deepcopy(ours)
    optimisers = [torch.optim.Adam(net.parameters(), lr=0.01, fused=True) for net in (ours, plain)]
    for _ in range(5):
        batch = torch.randn(16, 4)
        for net, optimiser in zip((ours, plain), optimisers, strict=True):
            optimiser.zero_grad()
            (10 * net(batch).square().mean()).backward()
        norms = [torch.nn.utils.get_total_norm([p.grad for p in net.parameters()]) for net in (ours, plain)]
        assert (norms[0] > 0.5) == (norms[1] > 0.5)
        update(optimisers[0], clip_norm)
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(plain.parameters(), clip_norm)
        optimisers[1].step()
    assert norms[0] > 0.5  # so that the middle case does clip
    torch.testing.assert_close(ours.state_dict(), plain.state_dict())


@pytest.mark.parametrize("mode", [True, False], ids=["training", "serving"])
@pytest.mark.parametrize("size", [6, 7])
def test_s_and_t_side_by_side_are_the_two_nets_of_the_paper(size, mode):
    block = DoubleCoupling(size, hidden=8, depth=3).train(mode)
    z = torch.randn(5, size)

    def net(nets, which, x):
        for index, (weight, bias) in enumerate(zip(nets.weights, nets.biases, strict=True)):
            x = functional.linear(functional.leaky_relu(x, 0.01) if index else x, weight[which].T, bias[which, 0])
        return x

    a, b = z[:, : size // 2], z[:, size // 2 :]
    s1 = net(block.first, 0, a).tanh()
    b = b * s1.exp() + net(block.first, 1, a)
    s2 = net(block.second, 0, b).tanh()
    a = a * s2.exp() + net(block.second, 1, b)
    torch.testing.assert_close(block(z), (torch.cat([a, b], dim=1), s1.sum(dim=1) + s2.sum(dim=1)))


def test_gradients_lie_in_memory_as_their_weights_do():
    block = DoubleCoupling(6, hidden=8, depth=2)
    sum(part.sum() for part in block(torch.randn(4, 6))).backward()
    assert all(p.grad.stride() == p.stride() and p.is_contiguous() for p in block.parameters())
