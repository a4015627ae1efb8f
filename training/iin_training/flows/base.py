"""The contract of every invertible block."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["FlowBlock"]


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
