"""SIGTERM and Ctrl-C put off until a step is finished and its state is saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Termination:
    """Whether this process has been asked to end, and by which signal."""

    asked: bool = False
    by: signal.Signals = signal.SIGTERM


@contextmanager
def termination_put_off() -> Iterator[Termination]:
    """SIGTERM and SIGINT only set `asked` while inside; on leaving, they have the effect that they would have had.

    A second SIGINT has it at once: whoever presses Ctrl-C again does not want to wait. Outside of the main thread,
    where handlers can't be set, and for a signal that is ignored, nothing changes.
    """
    put_off = Termination()
    former = {number: signal.getsignal(number) for number in SIGNALS}
    former = {number: handler for number, handler in former.items() if handler not in (signal.SIG_IGN, None)}
    if threading.current_thread() is not threading.main_thread():
        yield put_off
        return

    def note(number: int, frame: FrameType | None) -> None:
        again = put_off.asked and number == signal.SIGINT
        put_off.asked, put_off.by = True, signal.Signals(number)
        if again:
            signal.signal(number, former[put_off.by])
            signal.raise_signal(number)

    for number in former:
        signal.signal(number, note)
    try:
        yield put_off
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if put_off.asked and put_off.by in former:
            signal.raise_signal(put_off.by)
