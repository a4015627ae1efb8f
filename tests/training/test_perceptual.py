"""The pretrained networks: they are those that the weights belong to, and can be trained through."""

import pytest
import torch
from iin_training.models.perceptual import LEAST, FeatureNetwork, PerceptualDistance

# Distances of `pictures(size)` as the package's own code gives them: stlpips_pytorch 0.0.2,
# `stlpips.LPIPS(net=net, variant="shift_tolerant")` with net "alex" and "vgg", torch 2.13 on a CPU.
GOLDEN = {("alex", 32): 0.4551776, ("alex", 64): 0.7124979, ("vgg16", 32): 0.5190327, ("vgg16", 64): 0.7390310}
NETS = ("alex", "vgg16")


def pictures(size):
    """Two pictures made of waves and a disc, each `(1, 3, size, size)` in [-1, 1]."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    disc = torch.where(x**2 + y**2 < 0.5, 0.8, -0.9)
    waves = torch.stack([torch.sin(7 * x), torch.cos(5 * y), torch.sin(4 * (x + y))])
    return waves[None], torch.stack([disc, torch.sin(9 * x * y), x])[None]


@pytest.fixture(scope="module")
def distances():
    return {net: PerceptualDistance(net) for net in NETS}


@pytest.mark.parametrize(("net", "size"), GOLDEN)
def test_distances_are_those_of_the_package_that_the_weights_come_from(distances, net, size):
    assert distances[net](*pictures(size)).item() == pytest.approx(GOLDEN[net, size], rel=1e-4)


@pytest.mark.parametrize("net", NETS)
def test_a_distance_is_symmetric_zero_for_equal_pictures_and_one_a_pair(distances, net):
    a, b = pictures(32)
    found = distances[net](torch.cat([a, a, b]), torch.cat([b, a, a]))
    assert found.shape == (3,)
    assert found[1] == 0
    assert found[0].item() == pytest.approx(found[2].item(), rel=1e-5)


@pytest.mark.parametrize("net", NETS)
def test_a_picture_of_one_channel_is_taken_for_grey(distances, net):
    a, b = (picture.mean(dim=1, keepdim=True) for picture in pictures(32))
    assert torch.equal(distances[net](a, b), distances[net](a.repeat(1, 3, 1, 1), b.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("net", NETS)
def test_gradients_are_finite_even_between_flat_black_pictures_and_reach_the_pictures_only(distances, net):
    black = torch.full((2, 3, 32, 32), -1.0)
    other = torch.cat([pictures(32)[0], black[:1]])
    black.requires_grad_()
    distances[net](black, other).sum().backward()
    assert black.grad is not None
    assert black.grad.isfinite().all()
    assert black.grad[0].abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in distances[net].parameters())


def test_a_picture_can_be_brought_close_by_descent(distances):
    start, goal = pictures(32)
    picture = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([picture], lr=0.05)
    for _ in range(20):
        loss = distances["alex"](picture, goal).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5 * GOLDEN["alex", 32]


@pytest.mark.parametrize("net", NETS)
def test_the_smallest_picture_passes_and_a_smaller_one_is_refused(net):
    network = FeatureNetwork(net)
    least = LEAST[net]
    assert len(network(torch.zeros(1, 3, least, least))) == 5
    told = rf"images: expected .* at least {least}x{least} pixels for {net}, got \(1, 3, {least}, {least - 1}\)"
    with pytest.raises(ValueError, match=told):
        network(torch.zeros(1, 3, least, least - 1))


def test_features_have_the_channels_that_are_documented():
    maps = {net: FeatureNetwork(net)(torch.zeros(2, 3, 64, 64)) for net in NETS}
    assert [tuple(found.shape[:2]) for found in maps["alex"]] == [(2, width) for width in (64, 192, 384, 256, 256)]
    assert [tuple(found.shape[:2]) for found in maps["vgg16"]] == [(2, width) for width in (64, 128, 256, 512, 512)]
