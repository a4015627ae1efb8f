"""Memory that a step frees is kept for the next one."""

import ctypes

__all__ = ["keep_freed"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def keep_freed() -> None:
    """Let glibc keep up to 2 GiB of freed memory for reuse, instead of returning it to the system.

    Otherwise the gradients and activations of every step are mapped anew, and the system clears each page at its first
    touch. This holds for the whole process. Other C libraries, which have no `mallopt`, are left alone.
    Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Larger tensors are still mapped by themselves; older glibc takes 32 MiB at most. The second call alone would stop
    # glibc from raising the first limit by itself, from 128 KiB.
    if mallopt is not None and (mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)):
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
