"""Signals to end are put off until the work that must be finished is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from tl_core.training.termination import SIGNALS, termination_put_off


@pytest.fixture
def noted() -> Iterator[list[int]]:
    """Signals to end that came through, instead of the end."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    former: dict[signal.Signals, Any] = {number: signal.signal(number, note) for number in SIGNALS}
    yield came
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_comes_through_at_the_end(noted: list[int], number: signal.Signals) -> None:
    with termination_put_off() as termination:
        assert not termination.asked
        signal.raise_signal(number)
        assert (termination.asked, termination.by, noted) == (True, number, [])
    assert noted == [number]
    signal.raise_signal(number)
    assert noted == [number, number]


def test_a_second_ctrl_c_comes_through_at_once() -> None:
    reached: list[int] = []

    def pressed_twice() -> None:
        with termination_put_off():
            signal.raise_signal(signal.SIGINT)
            reached.append(1)
            signal.raise_signal(signal.SIGINT)
            reached.append(2)

    with pytest.raises(KeyboardInterrupt):
        pressed_twice()
    assert reached == [1]


def test_a_signal_that_is_ignored_stays_so(noted: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with termination_put_off() as termination:
        signal.raise_signal(signal.SIGINT)
        assert not termination.asked
    assert noted == []


def test_another_thread_sets_no_handlers(noted: list[int]) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    inside: list[Any] = []

    def work() -> None:
        with termination_put_off():
            inside.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == before
