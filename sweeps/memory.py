"""Memory of the process: what a training frees is kept for its next step."""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Parameters of glibc's `mallopt`."""
LARGEST, LARGEST_OF_OLD = 1 << 30, 32 << 20
"""Bytes; older versions of glibc refuse more than 32 MiB."""


def keep_freed_memory() -> None:
    """Have glibc keep freed memory instead of giving it back to the system.

    By default, activations of a few megabytes are given back after every step, and their pages are zeroed by the kernel in the
    next one: a fifth of the time of a small convolution net. One arena for all threads keeps the peak where it was. Where the C
    library is another one, nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return
    if not library.mallopt(MMAP_THRESHOLD, LARGEST):
        library.mallopt(MMAP_THRESHOLD, LARGEST_OF_OLD)
    library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
    library.mallopt(ARENA_MAX, 1)
