"""The invertible blocks of T, and their contract."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ActNorm", "DoubleCoupling", "Flatten", "FlowBlock", "Nets", "Permutation"]

MIN_STD = 1e-3  # a dimension quieter than this is scaled as if it were this loud, so exp() stays finite


class FlowBlock(nn.Module, ABC):
    """An invertible map of vectors `(N, D) -> (N, D)` with a tractable Jacobian determinant.

    Both directions return the value, `(N, D)`, and the logarithm of the absolute determinant of
    the Jacobian *of that direction*, `(N,)` in nats. Hence `inverse(forward(z))` returns `z`, and
    the two log-determinants add up to zero.
    """

    @abstractmethod
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map `z`, `(N, D)`, towards the factors; returns `(y, log|det dy/dz|)`."""

    @abstractmethod
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map `y`, `(N, D)`, back; returns `(z, log|det dz/dy|)`."""

    def initialize(self, batch: Tensor) -> None:
        """Set data-dependent parameters from a batch `(N, D)`; called once, before training."""


class ActNorm(FlowBlock):
    """`y = (z + shift) * exp(log_scale)`, initialised to give zero mean and unit variance.

    Source: Kingma and Dhariwal, Glow (NeurIPS 2018), section 3.1.
    """

    def __init__(self, size: int) -> None:
        """`size` is D, the number of dimensions."""
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.zeros(size))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y = (z + self.shift) * self.log_scale.exp()
        return y, self.log_scale.sum().expand(z.shape[0])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        z = y * (-self.log_scale).exp() - self.shift
        return z, (-self.log_scale.sum()).expand(y.shape[0])

    @torch.no_grad()
    def initialize(self, batch: Tensor) -> None:
        """Set shift and scale from `batch`, `(N, D)` with N >= 2."""
        std, mean = torch.std_mean(batch, dim=0)
        self.shift.copy_(-mean)
        self.log_scale.copy_(-std.clamp_min(MIN_STD).log())


class Nets(nn.Module):
    """The nets s and t of a half-step, which have the same input and sizes, side by side in one tensor a layer.

    `depth` >= 1 hidden layers with LeakyReLU(0.01), then a linear layer.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, depth: int) -> None:
        super().__init__()
        sizes = list(itertools.pairwise([inputs, *[hidden] * depth, outputs]))
        nets = [[nn.Linear(*size) for size in sizes] for _ in "st"]
        # (2, inputs, outputs), so that the gradient of a product is laid out as its weights are, with no copy.
        self.weights = nn.ParameterList(
            torch.stack([layer.weight.T for layer in pair]) for pair in zip(*nets, strict=True)
        )
        *biases, last = (torch.stack([layer.bias[None] for layer in pair]) for pair in zip(*nets, strict=True))
        # One tensor for all hidden layers: a step costs a little for each, however small.
        self.hidden_biases, self.last_bias = nn.Parameter(torch.stack(biases)), nn.Parameter(last)

    @property
    def biases(self) -> tuple[Tensor, ...]:
        """Of each layer in order, `(2, 1, outputs)`."""
        return *self.hidden_biases.unbind(), self.last_bias

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """tanh(s), in (-1, 1), and t of `x`, `(N, inputs)`; both `(N, outputs)`."""
        layers = list(zip(self.weights, self.biases, strict=True))
        if self.training:  # half as many and larger products: less overhead, more cores at work
            s, t = _chain(torch.baddbmm, x.expand(2, -1, -1), layers)
        else:  # products that onnxruntime packs the weights of beforehand
            s, t = (_chain(torch.addmm, x, [(weight[net], bias[net]) for weight, bias in layers]) for net in range(2))
        # Autocast may have made the products bfloat16; the coupling itself keeps the precision of its input.
        return s.to(x.dtype).tanh(), t.to(x.dtype)


def _chain(product: Callable[..., Tensor], x: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    for index, (weight, bias) in enumerate(layers):
        if index:
            x = functional.leaky_relu(x, 0.01, inplace=True)  # its gradient needs the result only
        x = product(bias, x, weight)
    return x


class DoubleCoupling(FlowBlock):
    """Two affine half-steps, `b <- b exp(s(a)) + t(a)`, then the same with the halves exchanged.

    Every dimension is changed once a block. `s` ends in tanh, so a half-step scales by at most e.
    Source: Esser, Rombach, Ommer (CVPR 2020), supplement; coupling after Dinh et al., Real NVP.
    """

    def __init__(self, size: int, hidden: int, depth: int) -> None:
        """`size` is D >= 2 (odd sizes split unevenly); `hidden`, `depth` shape the s and t nets."""
        super().__init__()
        self.split = (size // 2, size - size // 2)
        first, second = self.split
        self.first, self.second = Nets(first, second, hidden, depth), Nets(second, first, hidden, depth)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        a, b = z.split(self.split, dim=1)
        s1, t1 = self.first(a)
        b = b * s1.exp() + t1
        s2, t2 = self.second(b)
        a = a * s2.exp() + t2
        return torch.cat([a, b], dim=1), s1.sum(dim=1) + s2.sum(dim=1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        a, b = y.split(self.split, dim=1)
        s2, t2 = self.second(b)
        a = (a - t2) * (-s2).exp()
        s1, t1 = self.first(a)
        b = (b - t1) * (-s1).exp()
        return torch.cat([a, b], dim=1), -s1.sum(dim=1) - s2.sum(dim=1)


class Permutation(FlowBlock):
    """`y = z[:, order]`, fixed; its log-determinant is zero."""

    order: Tensor
    inverse_order: Tensor

    def __init__(self, order: Tensor) -> None:
        """`order` is `(D,)`, each of 0 to D - 1 once."""
        super().__init__()
        self.register_buffer("order", order)
        self.register_buffer("inverse_order", order.argsort())

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z[:, self.order], z.new_zeros(z.shape[0])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y[:, self.inverse_order], y.new_zeros(y.shape[0])


class Flatten(FlowBlock):
    """Latents of any shape `(N, *shape)` to vectors `(N, D)` in row-major order; its log-determinant is zero.

    The first block of a flow for spatial latents: T then takes `(N, C, H, W)`, and its inverse gives it back.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """`shape` is that of one latent, for example (C, H, W)."""
        super().__init__()
        self.shape, self.size = tuple(shape), math.prod(shape)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z.reshape(z.shape[0], self.size), z.new_zeros(z.shape[0])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y.reshape(y.shape[0], *self.shape), y.new_zeros(y.shape[0])
