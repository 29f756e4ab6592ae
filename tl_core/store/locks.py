"""Advisory file locks (flock), shared or exclusive: the system lets go of them when their owner dies, however."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
_POLL = 0.002, 0.05  # seconds between tries, first and at most


class LocksUnsupported(Exception):  # noqa: N818
    """The file system (or the operating system) has no such locks."""


def try_lock(handle: int, *, exclusive: bool) -> bool:
    """Whether the open file's lock could be taken at once; it goes when the file is closed.

    Raises LocksUnsupported.
    """
    if fcntl is None:
        raise LocksUnsupported
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise LocksUnsupported from error
        raise
    return True


def is_held(path: Path) -> bool:
    """Whether a living process holds a lock of the file. Raises LocksUnsupported, OSError."""
    handle = os.open(path, os.O_RDWR)  # over NFS an exclusive lock takes a writable file
    try:
        return not try_lock(handle, exclusive=True)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, *, exclusive: bool, patience: float) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is not there.

    patience: seconds to wait for it, since its holder may be suspended. Raises TimeoutError after them,
    LocksUnsupported, OSError.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline, pause = time.monotonic() + patience, _POLL[0]
        while not try_lock(handle, exclusive=exclusive):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} stayed locked for {patience:g} seconds")
            time.sleep(pause)
            pause = min(2 * pause, _POLL[1])
        yield
    finally:
        os.close(handle)
