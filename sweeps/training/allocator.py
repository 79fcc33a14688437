"""Memory of the process: what a training frees is kept for its next step."""

import ctypes
import gc
import sys

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Parameters of glibc's `mallopt`."""
LARGEST, LARGEST_OF_OLD = 1 << 30, 32 << 20
"""Bytes; older versions of glibc refuse more than 32 MiB."""


def keep_freed_memory() -> None:
    """Have glibc keep freed memory instead of giving it back to the system.

    By default, activations of a few megabytes are given back after every step, and their pages are zeroed by
    the kernel in the next one: a fifth of the time of a small convolution net. One arena for all threads
    keeps the peak where it was. Where the C library is another one, nothing is done.
    """
    library = glibc()
    if library is None:
        return
    if not library.mallopt(MMAP_THRESHOLD, LARGEST):
        library.mallopt(MMAP_THRESHOLD, LARGEST_OF_OLD)
    library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
    library.mallopt(ARENA_MAX, 1)


def give_freed_memory_back() -> None:
    """Have glibc and CUDA give back what is freed: there was too little for someone."""
    gc.collect()  # an error's traceback may hold what is to be freed
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if (library := glibc()) is not None:
        library.malloc_trim(0)


def glibc() -> ctypes.CDLL | None:
    """The C library, None where it is another one."""
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return library if hasattr(library, "gnu_get_libc_version") else None
