"""The network T as this project, zuko and FrEIA build it: the same sizes, couplings and number of weights."""

import math
from collections.abc import Callable

import FrEIA.framework as freia
import FrEIA.modules as freia_modules
import torch
import zuko
from iin_training.flows import interpretation_flow
from torch import Tensor, nn
from zuko.lazy import LazyComposedTransform, LazyTransform, UnconditionalTransform
from zuko.transforms import CouplingTransform, DependentTransform, MonotonicAffineTransform, PermutationTransform

__all__ = ["BUILD", "Net"]

Net = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Latents `(N, D)` to factors `(N, D)` and log-determinants `(N,)`."""


def ours(size: int, blocks: int, hidden: int, depth: int, batch: Tensor) -> tuple[nn.Module, Net]:
    flow = interpretation_flow(size, blocks=blocks, hidden=hidden, depth=depth, seed=0)
    flow.initialize(batch)
    return flow, flow


def subnet(inputs: int, outputs: int, hidden: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in [inputs] + [hidden] * (depth - 1):
        layers += [nn.Linear(width, hidden), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers, nn.Linear(hidden, outputs))


def with_freia(size: int, blocks: int, hidden: int, depth: int, batch: Tensor) -> tuple[nn.Module, Net]:
    net = freia.SequenceINN(size)
    for block in range(blocks):
        net.append(freia_modules.ActNorm)
        net.append(
            freia_modules.RNVPCouplingBlock,
            subnet_constructor=lambda inputs, outputs: subnet(inputs, outputs, hidden, depth),
            clamp=1.0,
            clamp_activation="TANH",
        )
        net.append(freia_modules.PermuteRandom, seed=block)
    net(batch)  # its ActNorm takes the first batch
    return net, net


class ZukoHalfStep(LazyTransform):
    """zuko's own coupling has one net for scale and shift; here there are two, as in the paper."""

    def __init__(self, mask: Tensor, hidden: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        given, changed = int(mask.sum()), int((~mask).sum())
        wide = {"hidden_features": [hidden] * depth, "activation": lambda: nn.LeakyReLU(0.01)}
        self.s, self.t = zuko.nn.MLP(given, changed, **wide), zuko.nn.MLP(given, changed, **wide)

    def affine(self, given: Tensor) -> DependentTransform:
        # A slope this small leaves the logarithm of the scale as it is.
        affine = MonotonicAffineTransform(self.t(given), self.s(given).tanh(), slope=math.ulp(0))
        return DependentTransform(affine, 1)

    def forward(self, c: Tensor | None = None) -> CouplingTransform:
        return CouplingTransform(self.affine, self.mask)


def with_zuko(size: int, blocks: int, hidden: int, depth: int, batch: Tensor) -> tuple[nn.Module, Net]:
    first = torch.arange(size) < size // 2
    layers: list[LazyTransform] = []
    for block in range(blocks):
        order = torch.randperm(size, generator=torch.Generator().manual_seed(block))
        norm = UnconditionalTransform(
            lambda shift, scale: DependentTransform(MonotonicAffineTransform(shift, scale, slope=math.ulp(0)), 1),
            torch.zeros(size),
            torch.zeros(size),
        )
        layers += [norm, ZukoHalfStep(first, hidden, depth), ZukoHalfStep(~first, hidden, depth)]
        layers.append(UnconditionalTransform(PermutationTransform, order, buffer=True))
    net = LazyComposedTransform(*layers).to(batch.device)
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, UnconditionalTransform) and (own := list(layer.parameters())):
                shift, scale = own
                scale.copy_(-batch.std(dim=0).log())
                shift.copy_(-batch.mean(dim=0) * scale.exp())
            batch = layer()(batch)
    return net, lambda latents: net().call_and_ladj(latents)


BUILD = {"iin": ours, "zuko": with_zuko, "FrEIA": with_freia}
"""By library: size, blocks, hidden, depth and a first batch `(N, size)` to modules and the map that they are."""
