"""Keeps the memory of large buffers instead of giving it back to the kernel after every image.

glibc returns each large block as soon as it is freed, and the next image pays a page fault for every 4 kB of it. With
12-megapixel RGB JPEGs that is 9,500 faults and a third of the time to decode (`python -m benchmarks.allocator`). In
training it is more: every layer's activations come and go with each step.
"""

from __future__ import annotations

import ctypes
import os
import sys

# From glibc's malloc.h; values as in mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
SET_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


def keep_buffers() -> bool:
    """Tells glibc to keep freed blocks below 1 GiB for the next image; call once at the start of a long-lived process.

    The process then stays as large as it ever was: the price is memory that is not shared with others. Leaves alone
    what the user has set, and does nothing where the C library is not glibc.

    Returns:
        Whether it was done.
    """
    if sys.platform != "linux" or any(name in os.environ for name in SET_BY_USER):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):  # musl has no mallopt worth the name
        return False
    return bool(library.mallopt(M_MMAP_THRESHOLD, 1 << 30) and library.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))
