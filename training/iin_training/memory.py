"""Memory that a step frees is kept for the next one."""

import ctypes

__all__ = ["keep_freed"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def keep_freed() -> None:
    """Let the C library keep up to 2 GiB that tensors freed, in place of giving it back to the system.

    Otherwise the gradients and activations of every step are mapped anew, and the system clears each page at its first
    touch. For the whole process; C libraries without glibc's `mallopt` stay as they are.
    Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30)  # larger tensors are still mapped by themselves
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
