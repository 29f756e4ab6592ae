"""Silence for libmpg123, which tells its troubles to C's `stderr` and which libsndfile gives no switch for."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = ("stderr", "__stderrp")  # glibc, macOS

_lock = threading.Lock()
_inside = 0
_nowhere: int | None = None  # a C stream, opened once and never closed: a decoder may still hold it
_before: int | None = None


@contextmanager
def quiet_c_stderr() -> Iterator[None]:
    """Let C libraries print their errors to nowhere; Python's own sys.stderr, a progress bar say, goes on.

    What is printed holds nothing that the decoder doesn't also return. The stream is the process's, so threads that
    overlap share it: the first in sets it, the last out restores it. Does nothing where C's `stderr` has another name.
    """
    stream = _c_stderr()
    if stream is None:
        yield
        return
    _enter(stream)
    try:
        yield
    finally:
        _leave(stream)


def _c_stderr() -> ctypes.c_void_p | None:
    if os.name != "posix":
        return None
    for name in _NAMES:
        try:
            return ctypes.c_void_p.in_dll(ctypes.CDLL(None), name)
        except ValueError:
            continue
    return None


def _enter(stream: ctypes.c_void_p) -> None:
    global _inside, _nowhere, _before
    with _lock:
        if _nowhere is None:
            fopen = ctypes.CDLL(None).fopen
            fopen.restype = ctypes.c_void_p
            _nowhere = fopen(os.devnull.encode(), b"w")
        if _inside == 0 and _nowhere is not None:
            _before, stream.value = stream.value, _nowhere
        _inside += 1


def _leave(stream: ctypes.c_void_p) -> None:
    global _inside, _before
    with _lock:
        _inside -= 1
        if _inside == 0 and _before is not None:
            stream.value, _before = _before, None
