"""Digests of values, of images, and of objects that have a digest of their own."""

import hashlib
import weakref
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iin_training.data.images import Images

__all__ = ["digest_of", "images_digest", "knows", "own_digest"]

LOADED = 64  # images at a time
_DIGESTS: dict[int, str] = {}  # by identity of the images, as long as these live


def digest_of(*parts: Tensor | str | bool | float | tuple[str | bool | float, ...]) -> str:
    """Hexadecimal sha256 of `parts`, their order, and of tensors also shape and dtype."""
    whole = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            one = hashlib.sha256(repr((str(part.dtype), tuple(part.shape))).encode())
            one.update(part.detach().cpu().contiguous().numpy().reshape(-1).view(np.uint8).data)
        else:
            one = hashlib.sha256(repr(part).encode())
        whole.update(one.digest())
    return whole.hexdigest()


def knows(thing: Any, name: str, method: str) -> bool:
    """Whether `thing` has a method or property `name` that holds for its `method`, such as `draw`.

    It does not hold where a class overrides `method` but inherits `name`: that describes the overridden method.
    """
    for cls in type(thing).__mro__:
        if name in vars(cls):
            return True
        if method in vars(cls):
            break
    return False


def own_digest(thing: Any, method: str) -> str | None:
    """`thing.digest()`; None where it has none that holds for its `method`, see `knows`."""
    return str(thing.digest()) if knows(thing, "digest", method) else None


def images_digest(images: Images) -> str:
    """Hexadecimal sha256 over all images and how they are loaded: their own `digest()` where they have one.

    Images without one are all loaded once, and the first 64 again with a generator, which shows what is done at
    random. The result is remembered as long as the object lives.
    """
    known = own_digest(images, "load")
    if known is not None:
        return known
    if (known := _DIGESTS.get(id(images))) is None:
        batches = torch.arange(len(images)).split(LOADED)
        loaded = [digest_of(images.load(batch, None)) for batch in batches]
        again = images.load(batches[0], torch.Generator().manual_seed(0))
        known = digest_of(*loaded, again)
        with suppress(TypeError):  # no weak reference to what has slots: such images are read again
            weakref.finalize(images, _DIGESTS.pop, id(images))
            _DIGESTS[id(images)] = known
    return known
