"""Digests of whatever decides a result."""

import hashlib

import numpy as np
from torch import Tensor

__all__ = ["digest_of"]


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
