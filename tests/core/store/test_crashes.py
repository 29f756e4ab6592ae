"""Full disks, killed writers and several writers at once leave whole rows."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tl_core.store import FeatureStore, StoreFull

from .cases import (
    ENGINE,
    F32,
    SPACE,
    WRITER,
    digests,
    rows_of,
    start_writer,
)


@pytest.mark.parametrize("fails_after", [0, 1, 2, 3])
def test_a_full_disk_keeps_what_was_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_after: int) -> None:
    write, calls = os.write, 0

    def short_of_space(handle: int, data: memoryview) -> int:
        nonlocal calls
        calls += 1
        if calls == fails_after + 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[:100]) if calls == fails_after + 1 else write(handle, data)

    def append(_: int) -> None:
        writer.append(digests(2, 3, 4, 5), rows_of([2, 3, 4, 5]))

    with FeatureStore(tmp_path).writer(SPACE, (64,), F32, ENGINE) as writer:
        writer.append(digests(0, 1), rows_of([0, 1]))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", short_of_space)
            with pytest.raises(StoreFull) as caught:
                list(map(append, range(3)))
        stored = caught.value.stored
        assert f"is full: {stored} rows were stored, 4 are missing; free some space (`tl cache gc`" in str(caught.value)
        assert "store.path" in str(caught.value)
        writer.append(digests(6), rows_of([6]))  # there is space again
    store = FeatureStore(tmp_path)
    np.testing.assert_array_equal(store.read(SPACE, digests(0, 1, 6))[0], rows_of([0, 1, 6]))
    assert store.verify() == []


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    exec(sys.stdin.read())
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_real_limit_on_file_size(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), "0", "100"], input=WRITER, capture_output=True, text=True
    )
    assert "StoreFull the disk of the feature store" in done.stdout, done.stderr
    assert "30 rows were stored, 10 are missing" in done.stdout
    store = FeatureStore(tmp_path)
    np.testing.assert_array_equal(store.read(SPACE, digests(*range(30)))[0], rows_of(range(30)))
    assert store.verify() == []


def test_kill_at_any_moment(tmp_path: Path) -> None:
    waits = random.Random(1)
    for _ in range(6):
        process = start_writer(tmp_path, 0, 100_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        time.sleep(waits.uniform(0, 0.08))
        process.kill()
        process.wait()
        process.stdout.close()
        store = FeatureStore(tmp_path)
        there = np.flatnonzero(store.present(SPACE, digests(*range(3000)))).tolist()
        np.testing.assert_array_equal(store.read(SPACE, digests(*there))[0], rows_of(there))
        assert store.verify() == []
    assert there, "no writer lived long enough to store a row"


def test_two_writers_of_the_same_rows_and_a_reader(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path, 0, 600), start_writer(tmp_path, 300, 900)]
    store = FeatureStore(tmp_path)
    while any(process.poll() is None for process in writers):
        there = np.flatnonzero(store.present(SPACE, digests(*range(900)))).tolist()
        np.testing.assert_array_equal(store.read(SPACE, digests(*there))[0].ravel(), rows_of(there).ravel())
    for process in writers:
        assert process.communicate()[0] == "open\ndone\n"
    np.testing.assert_array_equal(store.read(SPACE, digests(*range(900)))[0], rows_of(range(900)))
    assert store.verify() == []
    assert store.info()[0].rows == 900
