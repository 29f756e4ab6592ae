"""Processes that extract into one space at once share the work, whatever becomes of any of them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tl_core.store import FeatureStore, locks
from tl_core.store import claims as claims_module

from .cases import ENGINE, F32, SPACE, digest, digests, put, rows_of

# A process that extracts rows first..last, eight at a time, and says what it takes and has computed.
EXTRACTOR = """
import hashlib, sys, time
from pathlib import Path
import numpy as np
from tl_core.store import FeatureStore, Space
root, first, last, pause, patience = Path(sys.argv[1]), *map(int, sys.argv[2:4]), *map(float, sys.argv[4:])
space = Space("ab" * 32, "end", "float32")
number = {hashlib.md5(str(n).encode()).hexdigest(): n for n in range(first, last)}
names, store, computed = list(number), FeatureStore(root), 0
print("ready", flush=True)
sys.stdin.readline()
with store.claims(space) as claims, store.writer(space, (64,), np.dtype("f4"), "torch-2.0-cpu") as writer:
    def compute(todo):
        global computed
        time.sleep(pause)
        writer.append(todo, np.repeat(np.array([[number[d]] for d in todo], "f4"), 64, axis=1))
        computed += len(todo)
    for start in range(0, len(names), 8):
        part = names[start : start + 8]
        mine = [name for name, free in zip(part, claims.take(part)) if free]
        if mine:
            print("took", len(mine), flush=True)
            compute(mine)
    while left := claims.wait(names, patience):
        compute(left)
print("computed", computed, flush=True)
"""


class Extractor:
    def __init__(self, root: Path, first: int, last: int, pause: float = 0.01, patience: float = 2.0) -> None:
        command = [sys.executable, "-c", EXTRACTOR, *map(str, (root, first, last, pause, patience))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.line() == "ready\n"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def computed(self) -> int:
        out, _ = self.process.communicate(timeout=60)
        return int(out.rsplit("computed", 1)[1])


@pytest.fixture
def started() -> Iterator[list[Extractor]]:
    extractors: list[Extractor] = []
    yield extractors
    for extractor in extractors:
        extractor.process.kill()
        extractor.process.communicate()


def assert_whole(root: Path, count: int) -> None:
    store = FeatureStore(root)
    np.testing.assert_array_equal(store.read(SPACE, digests(*range(count)))[0], rows_of(range(count)))
    assert store.verify() == []
    assert not list(SPACE.folder(root).glob("*.claims"))


def test_nothing_is_computed_twice(tmp_path: Path, started: list[Extractor]) -> None:
    started += [Extractor(tmp_path, 0, 240), Extractor(tmp_path, 0, 240), Extractor(tmp_path, 120, 360)]
    for extractor in started:
        extractor.go()
    counts = [extractor.computed() for extractor in started]
    assert sum(counts) == 360
    assert min(counts) > 0
    assert_whole(tmp_path, 360)
    assert FeatureStore(tmp_path).info()[0].rows == 360


def test_a_killed_owner_is_inherited_at_once(tmp_path: Path, started: list[Extractor]) -> None:
    started += [Extractor(tmp_path, 0, 16, pause=60), Extractor(tmp_path, 0, 16, patience=50)]
    started[0].go()
    assert started[0].line() == "took 8\n"
    started[1].go()
    assert started[1].line() == "took 8\n"  # the others
    started[0].process.kill()
    begin = time.monotonic()
    assert started[1].computed() == 16
    assert time.monotonic() - begin < 40  # long before its patience ends
    assert_whole(tmp_path, 16)


def test_a_suspended_owner_is_waited_for_so_long(tmp_path: Path, started: list[Extractor]) -> None:
    started += [Extractor(tmp_path, 0, 16, pause=1), Extractor(tmp_path, 0, 16)]
    started[0].go()
    assert started[0].line() == "took 8\n"
    started[0].process.send_signal(signal.SIGSTOP)
    started[1].go()
    assert started[1].computed() == 16
    started[0].process.send_signal(signal.SIGCONT)
    assert started[0].computed() == 8  # what was in flight
    assert_whole(tmp_path, 16)


def test_a_suspended_holder_of_the_lock_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tl_core.store.claims._TURN", 0.2)
    SPACE.folder(tmp_path).mkdir(parents=True)
    with (
        locks.locked(SPACE.folder(tmp_path) / ".claims.lock", exclusive=True, patience=0),
        FeatureStore(tmp_path).claims(SPACE) as claims,
    ):
        assert claims.take(digests(1, 2)).all()


def test_what_is_stored_or_claimed_is_not_taken(tmp_path: Path) -> None:
    put(tmp_path, [1])
    one, two = FeatureStore(tmp_path), FeatureStore(tmp_path)
    with two.claims(SPACE) as theirs:
        with one.claims(SPACE) as mine:
            assert mine.take(digests(1, 2, 3)).tolist() == [False, True, True]
            assert mine.take(digests(3)).tolist() == [True]  # still mine
            assert theirs.take(digests(1, 2, 4)).tolist() == [False, False, True]
            assert mine.wait(digests(1, 2)) == [digest(2)]  # mine, and not computed
            assert mine.wait(digests(1)) == []
            assert mine.take([]).tolist() == []
        assert theirs.take(digests(2, 3)).tolist() == [True, True]  # given up


def test_waiting_goes_on_while_rows_arrive(tmp_path: Path) -> None:
    """The patience is with the owner: it counts what the owner stores, whoever waits for it."""
    with FeatureStore(tmp_path).claims(SPACE) as theirs, FeatureStore(tmp_path).claims(SPACE) as mine:
        theirs.take(digests(*range(10)))
        begin = time.monotonic()
        owner = threading.Thread(target=lambda: [time.sleep(0.25) or put(tmp_path, [n]) for n in range(4)])
        owner.start()
        left = mine.wait(digests(9), patience=0.6)
        owner.join()
        assert left == [digest(9)]
        assert time.monotonic() - begin > 1.4
        assert theirs.wait(digests(*range(4))) == []


def test_two_that_wait_for_one_suspended_owner_do_not_both_take_over(tmp_path: Path) -> None:
    with (
        FeatureStore(tmp_path).claims(SPACE) as owner,
        FeatureStore(tmp_path).claims(SPACE) as one,
        FeatureStore(tmp_path).claims(SPACE) as two,
    ):
        owner.take(digests(1))
        assert one.wait(digests(1), patience=0.1) == [digest(1)]
        begin = time.monotonic()
        assert two.wait(digests(1), patience=0.4) == [digest(1)]  # once the heir has done nothing either
        assert time.monotonic() - begin > 0.35


def no_locks(handle: int, how: int) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("why", ["no fcntl", "no locks", "read-only", "full"])
def test_without_locks_everything_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    put(tmp_path, [1])
    if why == "no fcntl":
        monkeypatch.setattr(locks, "fcntl", None)
    elif why == "no locks":
        monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    else:

        def refused(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & os.O_CREAT and "claims" in str(path):
                raise OSError(errno.EROFS if why == "read-only" else errno.ENOSPC, "no")
            return opened(path, flags, *args, **kwargs)

        opened = os.open
        monkeypatch.setattr(os, "open", refused)
    with FeatureStore(tmp_path).claims(SPACE) as one, FeatureStore(tmp_path).claims(SPACE) as two:
        for claims in (one, two):
            assert claims.take(digests(1, 2)).tolist() == [False, True]
            assert claims.wait(digests(1, 2)) == [digest(2)]
    assert not list(SPACE.folder(tmp_path).glob("*.claims"))
    with FeatureStore(tmp_path).writer(SPACE, (64,), F32, ENGINE) as writer:
        writer.append(digests(2), rows_of([2]))


def test_claims_hold_where_gc_looks_at_them_as_they_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looking = iter([False, False])
    real = claims_module.try_lock
    monkeypatch.setattr(
        claims_module, "try_lock", lambda *args, **how: next(looking, None) is None and real(*args, **how)
    )
    with FeatureStore(tmp_path).claims(SPACE) as one, FeatureStore(tmp_path).claims(SPACE) as two:
        assert one.take(digests(1)).all()
        assert not two.take(digests(1)).any()


def test_a_disk_that_fills_up_under_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with FeatureStore(tmp_path).claims(SPACE) as one, FeatureStore(tmp_path).claims(SPACE) as two:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            assert one.take(digests(1)).all()
        assert two.take(digests(1)).all()
        assert one.take(digests(2)).all()
