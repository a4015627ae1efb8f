"""What is interpreted: a frozen model, pairs that say what its images share, and held-out pictures."""

from collections.abc import Callable
from dataclasses import dataclass

from iin_bundle import FactorLayout, Figure
from torch import Tensor

from iin_training.flows import Flow
from iin_training.models.frozen import FrozenModel
from iin_training.pairs.base import PairSource

__all__ = ["EXAMPLES", "PREVIEWS", "Measure", "Subject"]

EXAMPLES = 64
"""Held-out pictures that the exported graphs are tried on."""
PREVIEWS = 12
"""How many of them become the bundle's sample pictures."""

Measure = Callable[[FrozenModel, Flow, FactorLayout], dict[str, Figure]]
"""Further figures of a trained interpretation, by name."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Everything that the interpretation of a model starts from."""

    model: FrozenModel
    """The model; its latents are interpreted."""
    pairs: PairSource
    """Pairs that T is trained on."""
    held_out: PairSource
    """Pairs of pictures that no training step sees, drawn as they are."""
    examples: Tensor
    """Held-out pictures, `(M, C, H, W)` in the model's range on the CPU, M >= 32, that exported graphs are tried on."""
    captions: tuple[str, ...]
    """What each of the first examples shows; they become the bundle's sample pictures."""
    data_set: str
    """Name of the data, for the manifest."""
    data_set_sha256: str
    """Digest of the data."""
    measure: Measure | None = None
    """Measures what only this subject can tell, beside what is measured of every interpretation."""
