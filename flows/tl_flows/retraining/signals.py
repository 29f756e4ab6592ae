"""How `tl schedule` is told to end."""

from __future__ import annotations

import signal
import sys
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT)


def end_by_signals() -> None:
    """From now on a signal ends this process with exit code 0, after all that is to be done at exit."""
    for one in ENDING:
        signal.signal(one, _end)


def _end(*_: Any) -> None:
    sys.exit(0)
