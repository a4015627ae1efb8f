"""What pairs and images say of themselves by an optional method, such as a digest."""

from typing import Any

import torch

from iin_training.data.digests import digest_of
from iin_training.data.images import Images

__all__ = ["images_digest", "knows", "own_digest"]

LOADED = 64  # images at a time


def knows(thing: Any, name: str, method: str) -> bool:
    """Whether `thing` has a method or property `name` that may speak of its `method`.

    It may not in a class that overrides `method`, such as `draw`, but inherits `name` from a class that it extends.
    """
    for cls in type(thing).__mro__:
        if name in vars(cls):
            return True
        if method in vars(cls):
            break
    return False


def own_digest(thing: Any, method: str) -> str | None:
    """What `thing.digest()` says; None where it has none, or one that does not know its `method`."""
    return str(thing.digest()) if knows(thing, "digest", method) else None


def images_digest(images: Images) -> str:
    """Hexadecimal sha256 over all images and how they are loaded: their own `digest()` where they have one.

    Images of others that have none are all loaded once, and the first 64 again with a generator, which shows
    what is done at random.
    """
    known = own_digest(images, "load")
    if known is not None:
        return known
    batches = torch.arange(len(images)).split(LOADED)
    loaded = [digest_of(images.load(batch, None)) for batch in batches]
    return digest_of(*loaded, images.load(batches[0], torch.Generator().manual_seed(0)))
