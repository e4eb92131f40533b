"""Memory of training steps on CPUs: what a step frees is kept for the next one, as
PyTorch does it on GPUs.

By default the C library of Linux (glibc) returns large blocks, and the end of its heap,
to the system, which makes new pages for the next step and fills them with zeros: up to
an eighth of the time of a step (docs/benchmarks.md).
"""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`: how much free memory is kept, and the size from which a
block is one of the system."""

MOST_KEPT = 2**31 - 1
LARGEST_KEPT = (2**30, 2**25)
"""Bytes of a block. Older versions of glibc refuse the first."""


def keep():
    """Keeps freed memory, in the whole process, unless the user chose something for it
    in the environment.

    TensorFlow, which may load the data, lets the library keep as little as possible
    from its first generator of data on, so once is not enough.
    """
    is_chosen = any(name.startswith("MALLOC_") for name in os.environ)
    if is_chosen or "GLIBC_TUNABLES" in os.environ:
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return
    library.mallopt(_TRIM_THRESHOLD, MOST_KEPT)
    for size in LARGEST_KEPT:
        if library.mallopt(_MMAP_THRESHOLD, size):
            return
