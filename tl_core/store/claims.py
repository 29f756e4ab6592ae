"""Claims: processes that extract into one space at once share the work instead of doing it twice.

A process writes the keys that it is about to compute to a file of its own beside the shards and holds that file's
lock as long as it lives; claims whose owner has died, however, are void at once. Claims are advice: whatever goes
wrong with them, some rows are computed twice and nothing worse.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from tl_core.store.locks import LocksUnsupported, is_held, locked, try_lock
from tl_core.store.shards import digest_of, keys_of

SUFFIX = ".claims"
_TURN = 5.0  # seconds that another may keep us from reading and writing claims; it needs milliseconds
_POLL = 0.05, 0.5  # seconds between looks at the store, first and at most


@dataclass
class _Other:
    """What one living process has claimed. pending: bytes of keys that it has claimed and not yet stored."""

    read: int = 0  # bytes of its file
    pending: set[bytes] = field(default_factory=set)
    moved: float = field(default_factory=time.monotonic)  # when it last claimed or stored something


class Claims:
    """This process's claims in one space, and its view of the others'; to be used as a context manager."""

    def __init__(self, folder: Path, present: Callable[[np.ndarray], np.ndarray]) -> None:
        """folder: of the space; present: which keys (S16 [N]) are stored, bool [N]."""
        self._folder = folder
        self._present = present
        self._path = folder / f"{uuid.uuid4().hex}{SUFFIX}"
        self._handle: int | None = None
        self._others: dict[str, _Other] = {}

    def take(self, digests: Sequence[str]) -> np.ndarray:
        """Which digests are this process's to compute now, bool [N]: neither stored nor claimed by another."""
        keys = keys_of(digests)
        with self._turn():
            self._look_around()
            # stored is asked after claimed: who stores a row and leaves in between is seen to have stored it
            taken = {key for other in self._others.values() for key in other.pending}
            free = np.fromiter((key not in taken for key in keys.tolist()), bool, len(keys))
            free &= ~self._present(keys)
            self._add(keys[free])
        return free

    def wait(self, digests: Sequence[str], patience: float = 60.0) -> list[str]:
        """Those of the digests that are to be computed here after all; empty once all are stored.

        Waits while others that live are at them. As soon as some have no owner any more they become this process's
        and are returned (compute them and call again); likewise where the owner has claimed and stored nothing
        for `patience` seconds, be it suspended or stuck.
        """
        wanted = keys_of(digests)
        pause = _POLL[0]
        for other in self._others.values():
            other.moved = time.monotonic()  # nobody has been watching
        while True:
            with self._turn():
                self._look_around()
                wanted = wanted[~self._present(wanted)]
                late = time.monotonic() - patience
                busy = {key for other in self._others.values() if other.moved > late for key in other.pending}
                free = [key for key in wanted.tolist() if key not in busy]
                self._add(np.array(free, "S16"))
            if free or not len(wanted):
                return [digest_of(key) for key in free]
            time.sleep(pause)
            pause = min(1.5 * pause, _POLL[1])

    def close(self) -> None:
        """Give up what is claimed and not stored."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with suppress(OSError):
                self._path.unlink()
            os.close(handle)

    def __enter__(self) -> Self:
        with suppress(OSError, LocksUnsupported):  # without a file nobody knows of these claims, and no harm is done
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._turn():
                handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
                try:
                    for _ in range(20):  # gc may be looking just now whether it is held
                        if try_lock(handle, exclusive=True):
                            break
                        time.sleep(_POLL[0] / 10)
                except BaseException:
                    self._path.unlink()
                    os.close(handle)
                    raise
                self._handle = handle
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One process at a time; together after all where the one in front is suspended or there are no locks."""
        with ExitStack() as stack:
            with suppress(LocksUnsupported, OSError):  # TimeoutError is one
                stack.enter_context(locked(self._folder / f"{SUFFIX}.lock", exclusive=True, patience=_TURN))
            yield

    def _look_around(self) -> None:
        """Read what living others have claimed since the last look, and sweep the files of the dead."""
        others = {}
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            if path == self._path:
                continue
            with suppress(OSError, LocksUnsupported):
                if is_held(path):
                    others[path.name] = self._others.get(path.name) or _Other()
                    self._follow(path, others[path.name])
                else:
                    path.unlink()
        self._others = others

    def _follow(self, path: Path, other: _Other) -> None:
        with path.open("rb") as stream:
            stream.seek(other.read)
            data = stream.read()
        data = data[: len(data) // 16 * 16]
        other.read += len(data)
        other.pending.update(np.frombuffer(data, "S16").tolist())
        if not other.pending:
            return
        pending = np.array(list(other.pending), "S16")
        stored = self._present(pending)
        other.pending.difference_update(pending[stored].tolist())
        if data or stored.any():
            other.moved = time.monotonic()

    def _add(self, keys: np.ndarray) -> None:
        if self._handle is None or not len(keys):
            return
        try:
            if os.write(self._handle, keys.tobytes()) == keys.nbytes:
                return
        except OSError:
            pass
        self.close()  # a full disk: from now on nobody knows of these claims
