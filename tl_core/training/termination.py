"""SIGTERM put off until a step is finished and its state is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Termination:
    """Whether this process has been asked to end."""

    asked: bool = False


@contextmanager
def termination_put_off() -> Iterator[Termination]:
    """SIGTERM only sets `asked` while inside; on leaving, it has the effect that it would have had.

    Outside of the main thread, where handlers can't be set, and where SIGTERM is ignored, nothing changes.
    """
    put_off = Termination()
    former = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or former in (signal.SIG_IGN, None):
        yield put_off
        return

    def note(number: int, frame: FrameType | None) -> None:
        put_off.asked = True

    signal.signal(signal.SIGTERM, note)
    try:
        yield put_off
    finally:
        signal.signal(signal.SIGTERM, former)
        if put_off.asked:
            signal.raise_signal(signal.SIGTERM)
