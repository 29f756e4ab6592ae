"""Memory that a network's forward gives back and takes again: kept by the process in between."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's parameters, malloc.h
_MOST = (1 << 31) - 1
_USUAL_MMAP = 32 << 20  # where glibc's own, moving threshold ends up in a program that frees large blocks


@contextlib.contextmanager
def reused_memory() -> Iterator[None]:
    """While this holds, glibc's malloc keeps freed memory; afterwards it is given back.

    By default each large activation is mapped afresh and its pages are zeroed one fault at a time: a quarter of the
    CPU time of ResNet-50 in float32. Does nothing with another C library.
    """
    libc = _glibc()
    if libc is None or not libc.mallopt(_MMAP_THRESHOLD, _MOST // 2):
        yield
        return
    libc.mallopt(_TRIM_THRESHOLD, _MOST)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
        libc.mallopt(_TRIM_THRESHOLD, 2 * _USUAL_MMAP)
        libc.malloc_trim(0)


def _glibc() -> Any | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None
