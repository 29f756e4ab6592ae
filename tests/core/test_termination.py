"""Signals to end are put off until the work that must be finished is done.

The cases run in a process of their own, with the handlers that Python starts with: a signal that came through where it
should not would end the tests.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import Any

import pytest

CASES = ("15", "2", "twice", "ignored", "thread")


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Any]:
    """What each case has seen."""
    command = [sys.executable, __file__, *CASES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("number", [int(signal.SIGTERM), int(signal.SIGINT)])
def test_a_signal_comes_through_at_the_end(outcomes: dict[str, Any], number: int) -> None:
    assert outcomes[str(number)] == {
        "before": False,
        "inside": [True, number, []],
        "after": [number],
        "again": [number, number],
    }


def test_a_second_ctrl_c_comes_through_at_once(outcomes: dict[str, Any]) -> None:
    assert outcomes["twice"] == {"reached": [1], "raised": "KeyboardInterrupt"}


def test_a_signal_that_is_ignored_stays_so(outcomes: dict[str, Any]) -> None:
    assert outcomes["ignored"] == {"asked": False, "came": []}


def test_another_thread_sets_no_handlers(outcomes: dict[str, Any]) -> None:
    assert outcomes["thread"] == {"same": True}


def seen(case: str) -> dict[str, Any]:
    """A case, with signals to end noted instead of the end."""
    from tl_core.training.termination import SIGNALS, termination_put_off

    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    def through(number: int) -> dict[str, Any]:
        with termination_put_off() as termination:
            before = termination.asked
            signal.raise_signal(number)
            inside = [termination.asked, int(termination.by), list(came)]
        after = list(came)
        signal.raise_signal(number)
        return {"before": before, "inside": inside, "after": after, "again": list(came)}

    def twice() -> dict[str, Any]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        reached: list[int] = []
        raised = ""
        try:
            with termination_put_off():
                signal.raise_signal(signal.SIGINT)
                reached.append(1)
                signal.raise_signal(signal.SIGINT)
                reached.append(2)
        except KeyboardInterrupt as error:
            raised = type(error).__name__
        return {"reached": reached, "raised": raised}

    def ignored() -> dict[str, Any]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with termination_put_off() as termination:
            signal.raise_signal(signal.SIGINT)
            asked = termination.asked
        return {"asked": asked, "came": came}

    def another_thread() -> dict[str, Any]:
        before = [signal.getsignal(number) for number in SIGNALS]
        inside: list[Any] = []

        def work() -> None:
            with termination_put_off():
                inside.extend(signal.getsignal(number) for number in SIGNALS)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return {"same": inside == before}

    for number in SIGNALS:
        signal.signal(number, note)
    cases = {"twice": twice, "ignored": ignored, "thread": another_thread}
    return cases[case]() if case in cases else through(int(case))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps(seen(name)), flush=True)
