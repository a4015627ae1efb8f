"""A recipe for the hidden layer of a network that others have trained."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from iin_training.config import Optimiser, Transform
from iin_training.data.emoji import load_emoji
from iin_training.data.images import ImageArray
from iin_training.models.cut import cut
from iin_training.models.effnet import EfficientNetLite0
from iin_training.models.frozen import FrozenModel
from iin_training.own_model import OwnModel
from iin_training.pairs import Mixed, PairSource, SameLabel

__all__ = ["effnet"]

ROLES_HELD_OUT = 20


def effnet() -> OwnModel:
    """The last hidden layer of EfficientNet-Lite0 (ImageNet), asked what it knows of emoji persons and their skin."""
    emoji = load_emoji(held_out=ROLES_HELD_OUT, seed=0)
    images, held_out = ImageArray(emoji.images), ImageArray(emoji.held_out_images)
    shape = (images.shape.channels, images.shape.height, images.shape.width)
    encoder, head = cut(EfficientNetLite0(), "features", image_shape=shape)
    return OwnModel(
        name="effnet",
        model=FrozenModel(encoder, head=head, image_shape=shape, value_range=(-1.0, 1.0)),
        pairs=_pairs(images, emoji.labels),
        held_out=_pairs(held_out, emoji.held_out_labels),
        transform=Transform(
            blocks=4, hidden=256, depth=1, noise=0.3, optimiser=Optimiser(steps=600, batch_size=64, learning_rate=1e-3)
        ),
    )


def _pairs(images: ImageArray, labels: Mapping[str, NDArray[np.int64]]) -> PairSource:
    return Mixed([(SameLabel(images, labels[concept], concept), 1.0) for concept in ("person", "skin")])
