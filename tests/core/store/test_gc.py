"""Garbage collection frees what nobody uses, and harms nobody who is at work."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tl_core.errors import UserError
from tl_core.store import FeatureStore, GcResult, Space, locks
from tl_core.store import gc as module

from .cases import ENGINE, F32, RAGGED, SPACE, digests, put, put_tokens, rows_of, start_writer, tokens

OTHER = Space("cd" * 32, "end", "float32")


def size(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def shards(root: Path, space: Space = SPACE) -> int:
    return len(list(space.folder(root).glob("*.index")))


def use(root: Path, version: str, numbers: list[int] | range, space: Space = SPACE, when: float | None = None) -> None:
    FeatureStore(root).mark_used(space, version, digests(*numbers))
    if when is not None:
        for path in (root / "v2" / "uses" / version).iterdir():
            os.utime(path, (when, when))


def there(root: Path, numbers: list[int] | range, space: Space = SPACE) -> list[int]:
    return [n for n, ok in zip(numbers, FeatureStore(root).present(space, digests(*numbers))) if ok]


def collected(root: Path, keep_last: int | None = None, max_size: int | None = None) -> GcResult:
    """gc, having checked that a dry run says the same and does nothing."""
    before = {path: path.stat().st_size for path in root.rglob("*.*[!k]") if path.is_file()}
    foretold = FeatureStore(root).gc(keep_last, max_size, dry_run=True)
    assert {path: path.stat().st_size for path in root.rglob("*.*[!k]") if path.is_file()} == before
    held = size(root)
    result = FeatureStore(root).gc(keep_last, max_size)
    assert result == foretold
    assert (result.bytes_freed, result.bytes_kept) == (held - size(root), size(root))
    assert FeatureStore(root).verify() == []
    return result


def test_nothing_to_collect(tmp_path: Path) -> None:
    assert FeatureStore(tmp_path / "nowhere").gc(1, 0) == GcResult()
    assert not (tmp_path / "nowhere").exists()
    put(tmp_path, range(4))
    result = collected(tmp_path)
    assert result == GcResult(rows_kept=4, bytes_kept=size(tmp_path))
    with pytest.raises(ValueError, match="can't be negative"):
        FeatureStore(tmp_path).gc(keep_last=-1)


def test_small_shards_are_merged(tmp_path: Path) -> None:
    for n in range(12):
        put(tmp_path, [n])
        put_tokens(tmp_path, [n])
    put(tmp_path, [12], engine="torch-2.0-cuda")
    reader = FeatureStore(tmp_path)
    assert reader.present(SPACE, digests(*range(13))).all()
    result = collected(tmp_path)
    assert (result.rows_freed, result.rows_kept, result.full) == (0, 25, False)
    assert result.bytes_freed > 0
    assert shards(tmp_path) == 2  # one an engine
    assert shards(tmp_path, RAGGED) == 1
    for store in (reader, FeatureStore(tmp_path)):
        np.testing.assert_array_equal(store.read(SPACE, digests(*range(13)))[0], rows_of(range(13)))
        for n, row in enumerate(store.read_ragged(RAGGED, digests(*range(12)))[0]):
            np.testing.assert_array_equal(row["0.x"], tokens(n)["0.x"])
    assert reader.info()[1].engines == (ENGINE, "torch-2.0-cuda")
    assert collected(tmp_path).bytes_freed == 0


def test_flags_and_engines_survive(tmp_path: Path) -> None:
    for n in range(3):
        with FeatureStore(tmp_path).writer(SPACE, (2,), F32, ENGINE, {"timm": "1.0.9"}) as writer:
            writer.append(digests(n), rows_of([n], 2), np.array([n], np.uint8))
    collected(tmp_path)
    assert FeatureStore(tmp_path).flags(SPACE, digests(2, 1, 0)).tolist() == [2, 1, 0]
    assert FeatureStore(tmp_path).info()[0].made == ("timm 1.0.9",)


def test_rows_of_the_last_versions_stay(tmp_path: Path) -> None:
    put(tmp_path, range(40))
    put_tokens(tmp_path, range(40))
    put(tmp_path, range(5), OTHER)
    use(tmp_path, "first", range(0, 20), OTHER, when=1e8)
    use(tmp_path, "second", range(10, 25), when=2e8)
    use(tmp_path, "third", range(20, 30), when=3e8)
    use(tmp_path, "third", range(0, 3), RAGGED, when=3e8)
    result = collected(tmp_path, keep_last=2)
    assert (result.rows_freed, result.rows_kept) == (20 + 37 + 5, 20 + 3)
    assert result.spaces_removed == (OTHER.name,)
    assert there(tmp_path, range(40)) == list(range(10, 30))
    assert there(tmp_path, range(40), RAGGED) == [0, 1, 2]
    np.testing.assert_array_equal(FeatureStore(tmp_path).read(SPACE, digests(29, 10))[0], rows_of([29, 10]))

    collected(tmp_path, keep_last=1)
    assert there(tmp_path, range(40)) == list(range(20, 30))
    assert FeatureStore(tmp_path).gc(keep_last=0).rows_kept == 0
    assert FeatureStore(tmp_path).info() == []


def test_a_version_used_again_is_young_again(tmp_path: Path) -> None:
    put(tmp_path, range(9))
    use(tmp_path, "first", [1, 2], when=1e8)
    use(tmp_path, "second", [3], when=2e8)
    use(tmp_path, "first", [2])  # a part of what it used
    collected(tmp_path, keep_last=1)
    assert there(tmp_path, range(9)) == [1, 2]


def test_uses_of_one_version_add_up(tmp_path: Path) -> None:
    put(tmp_path, range(9))
    use(tmp_path, "a/../version of any name", [1, 2])
    use(tmp_path, "a/../version of any name", [2, 3])
    assert FeatureStore(tmp_path).info()[0].last_used == pytest.approx(time.time(), abs=60)
    assert [path.parent.parent.parent for path in (tmp_path / "v2" / "uses").glob("*/*")] == [tmp_path / "v2"]
    collected(tmp_path, keep_last=1)
    assert there(tmp_path, range(9)) == [1, 2, 3]


def test_marking_uses_never_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    FeatureStore(tmp_path / "file").mark_used(SPACE, "one", digests(1))

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    put(tmp_path / "store", [1])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        FeatureStore(tmp_path / "store").mark_used(SPACE, "one", digests(1))
    assert not list((tmp_path / "store" / "v2" / "uses").glob("*/*"))


def test_the_least_recently_used_spaces_go(tmp_path: Path) -> None:
    spaces = [Space(f"{n:02x}" * 32, "end", "float32") for n in range(4)]
    for when, space in enumerate(spaces, 1):
        put(tmp_path, range(10), space)
        use(tmp_path, f"version{when}", range(10), space, when=when * 1e8)
    use(tmp_path, "version9", [1], spaces[0], when=9e8)
    engine = tmp_path / "engines" / f"{spaces[1].fingerprint[:16]}-openvino"
    engine.mkdir(parents=True)
    (engine / "model.bin").write_bytes(bytes(5000))

    one = sum(path.stat().st_size for path in spaces[0].folder(tmp_path).iterdir())
    assert collected(tmp_path, max_size=size(tmp_path)).spaces_removed == ()
    result = collected(tmp_path, max_size=size(tmp_path) - one - 4000)
    assert result.spaces_removed == (spaces[1].name,)  # with its engine it is enough
    assert not engine.exists()
    result = collected(tmp_path, max_size=size(tmp_path) - one - 10)
    assert result.spaces_removed == (spaces[2].name, spaces[3].name)
    assert there(tmp_path, [0, 1], spaces[0]) == [0, 1]
    assert FeatureStore(tmp_path).gc(max_size=0).spaces_removed == (spaces[0].name,)


def test_engines_without_a_space_go(tmp_path: Path) -> None:
    put(tmp_path, [1])
    put(tmp_path, [1], OTHER)
    use(tmp_path, "one", [1])
    folder = tmp_path / "engines"
    folder.mkdir()
    names = [f"{SPACE.fingerprint[:16]}-a", f"{OTHER.fingerprint[:16]}-a", f"{'0' * 16}-a", f"{'1' * 16}-a", ".aside-x"]
    for name in names:
        (folder / name).mkdir()
        (folder / name / "model.bin").write_bytes(bytes(100))
    os.utime(folder / names[3], (1e9, 1e9))
    collected(tmp_path, keep_last=1)
    # the third may be of a backbone whose first row is being computed
    assert sorted(path.name for path in folder.iterdir()) == sorted([names[0], names[2], names[4]])


def test_spaces_of_format_1_are_listed_and_go(tmp_path: Path) -> None:
    put(tmp_path, [1])
    former = tmp_path / "abababababababab-end-float32"
    former.mkdir()
    facts = {"format_version": 1, "fingerprint": "ab" * 32, "cut": "end", "precision": "float32"}
    (former / "space.json").write_text(json.dumps({**facts, "shape": [2], "dtype": "<f4"}))
    (former / "0-1.index").write_bytes(bytes(80))
    (former / "0-1.rows").write_bytes(bytes(16))
    store = FeatureStore(tmp_path)
    assert there(tmp_path, [1, 2]) == [1]
    assert store.verify() == []
    assert [(info.format_version, info.rows) for info in store.info()] == [(1, 2), (2, 1)]
    result = collected(tmp_path)
    assert (result.rows_freed, result.rows_kept, result.spaces_removed) == (2, 1, (former.name,))
    assert not former.exists()

    former.mkdir()  # and where there is nothing else
    shutil.rmtree(tmp_path / "v2")
    assert collected(tmp_path).spaces_removed == (former.name,)


def test_folders_that_are_none_of_the_store_stay(tmp_path: Path) -> None:
    names = ["2026-05-01", "my-holiday-photos", "abababababababab-end", "abababababababab-end-photos"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious.txt").write_text("x")
    put(tmp_path, [1])
    assert [info.space.name for info in FeatureStore(tmp_path).info()] == [SPACE.name]
    assert collected(tmp_path, keep_last=1, max_size=0).spaces_removed == (SPACE.name,)
    assert [name for name in names if not (tmp_path / name / "precious.txt").exists()] == []


def test_damaged_and_double_rows_go_sound_ones_stay(tmp_path: Path) -> None:
    put(tmp_path, range(4))
    (path,) = SPACE.folder(tmp_path).glob("*.rows")
    data = bytearray(path.read_bytes())
    data[2 * 256] ^= 1
    path.write_bytes(data)
    put(tmp_path, [2, 3])  # computed again
    assert FeatureStore(tmp_path).verify() != []
    result = FeatureStore(tmp_path).gc()
    assert (result.rows_freed, result.rows_kept) == (2, 4)
    store = FeatureStore(tmp_path)
    np.testing.assert_array_equal(store.read(SPACE, digests(0, 1, 2, 3))[0], rows_of(range(4)))
    assert store.verify() == []


def test_writers_and_those_with_claims_are_left_alone(tmp_path: Path) -> None:
    put(tmp_path, [0])
    store = FeatureStore(tmp_path)
    with store.writer(SPACE, (64,), F32, ENGINE) as writer:
        writer.append(digests(1), rows_of([1]))
        result = FeatureStore(tmp_path).gc(keep_last=0, max_size=0)
        assert (result.rows_freed, result.rows_kept, result.shards_skipped) == (1, 1, 1)
        writer.append(digests(2), rows_of([2]))
    assert there(tmp_path, [0, 1, 2]) == [1, 2]
    with store.claims(SPACE):
        result = FeatureStore(tmp_path).gc(keep_last=0, max_size=0)
        assert (result.rows_freed, result.rows_kept, result.shards_skipped) == (0, 2, 1)
    with store.writer(SPACE, (64,), F32, ENGINE) as writer:
        assert FeatureStore(tmp_path).gc(keep_last=0).spaces_removed == (SPACE.name,)
        assert not SPACE.folder(tmp_path).exists()
        writer.append(digests(3), rows_of([3]))  # makes the space anew
    assert store.present(SPACE, digests(1, 3)).tolist() == [False, True]


def test_an_extraction_that_begins_meanwhile_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, range(4))
    put(tmp_path, range(4), OTHER)
    use(tmp_path, "one", [1])
    store, plan = FeatureStore(tmp_path), module._todo

    def late(*args: Any) -> Any:
        claims.__enter__()
        return plan(*args)

    claims = store.claims(SPACE)
    monkeypatch.setattr(module, "_todo", late)
    result = FeatureStore(tmp_path).gc(keep_last=1)
    assert (result.rows_freed, result.rows_kept, result.spaces_removed) == (4, 4, (OTHER.name,))
    claims.close()
    assert there(tmp_path, range(4)) == [0, 1, 2, 3]


def test_what_kills_leave_beside_the_uses_goes(tmp_path: Path) -> None:
    use(tmp_path, "one", [1])
    old, new = (tmp_path / "v2" / "uses" / "one" / name for name in (".old", ".new"))
    for path in (old, new):
        path.write_text("unfinished")
    os.utime(old, (1e9, 1e9))
    assert collected(tmp_path).bytes_freed == 10
    assert new.exists()


def test_a_reader_and_a_writer_while_gc_runs(tmp_path: Path) -> None:
    for n in range(0, 300, 3):
        put(tmp_path, range(n, n + 3))
    reader, failed = FeatureStore(tmp_path), []

    def keep_reading() -> None:
        try:
            while not stop.is_set():
                np.testing.assert_array_equal(reader.read(SPACE, digests(*range(300)))[0], rows_of(range(300)))
        except BaseException as error:
            failed.append(error)

    stop, thread = threading.Event(), threading.Thread(target=keep_reading)
    thread.start()
    writer = start_writer(tmp_path, 300, 1500)
    while writer.poll() is None:
        FeatureStore(tmp_path).gc()
    assert writer.communicate()[0] == "open\ndone\n"
    FeatureStore(tmp_path).gc()
    stop.set()
    thread.join()
    assert failed == []
    np.testing.assert_array_equal(FeatureStore(tmp_path).read(SPACE, digests(*range(1500)))[0], rows_of(range(1500)))
    assert shards(tmp_path) == 1


# gc in a child that is killed at its n-th step on the disk, for each n until it lives through.
KILLED = """
import os, signal, shutil, sys
from pathlib import Path
from tl_core.store import FeatureStore
template, root = Path(sys.argv[1]), Path(sys.argv[2])
steps = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}
killed = 0
while True:
    place = root / str(killed)
    shutil.copytree(template, place)
    child = os.fork()
    if not child:
        left = killed
        def step(event, args):
            global left
            if event in steps and str(args[0]).startswith(str(place)):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(step)
        FeatureStore(place).gc(keep_last=1)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
    killed += 1
print(killed)
"""


def test_killed_at_any_step(tmp_path: Path) -> None:
    template = tmp_path / "template"
    for n in range(0, 12, 4):
        put(template, range(n, n + 4))
        put_tokens(template, [n])
    put(template, [1], OTHER)
    use(template, "old", [1], OTHER, when=1e8)
    use(template, "one", range(3, 12), when=2e8)
    use(template, "one", [0, 8], RAGGED, when=2e8)
    (SPACE.folder(template) / "0-0.rows").write_bytes(b"left by a kill")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(template), str(tmp_path / "killed")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    killed = int(done.stdout)
    assert killed > 40
    for number in range(killed):
        root = tmp_path / "killed" / str(number)
        store = FeatureStore(root)
        assert store.verify() == [], number
        np.testing.assert_array_equal(store.read(SPACE, digests(*range(3, 12)))[0], rows_of(range(3, 12)))
        assert len(store.read_ragged(RAGGED, digests(0, 8))[0]) == 2
        store.gc(keep_last=1)
        assert there(root, range(12)) == list(range(3, 12))
        assert there(root, range(12), RAGGED) == [0, 8]
        left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        assert len(left) == 2 + 2 * 4 + 2, left  # locks, a shard and space.json twice, uses
        assert not OTHER.folder(root).exists()


def no_room(handle: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_still_loses_what_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, range(4))
    put(tmp_path, [1], OTHER)
    use(tmp_path, "one", [2, 3])
    with monkeypatch.context() as patch:
        patch.setattr("tl_core.store.compaction.os.fsync", no_room)
        result = FeatureStore(tmp_path).gc(keep_last=1)
    assert result.full
    assert (result.rows_freed, result.rows_kept, result.spaces_removed) == (1, 4, (OTHER.name,))
    assert there(tmp_path, range(4)) == [0, 1, 2, 3]
    assert not list(SPACE.folder(tmp_path).glob("*.part"))
    assert collected(tmp_path, keep_last=1).rows_freed == 2


def test_one_gc_at_a_time_and_none_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, [1])
    with (
        locks.locked(tmp_path / "v2" / ".gc.lock", exclusive=True, patience=0),
        pytest.raises(UserError, match="another gc is at work"),
    ):
        FeatureStore(tmp_path).gc()
    monkeypatch.setattr(locks, "fcntl", None)
    with pytest.raises(UserError, match="has no file locks, so that gc can't tell"):
        FeatureStore(tmp_path).gc()
    put(tmp_path, [2])  # writing goes without


@pytest.mark.parametrize("patience", ["tl_core.store.gc._PATIENCE", "tl_core.store.writing._PATIENCE"])
def test_who_is_suspended_with_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: str) -> None:
    put(tmp_path, [1])
    monkeypatch.setattr(patience, 0.05)
    act: Callable[[], object] = FeatureStore(tmp_path).gc if "gc" in patience else lambda: put(tmp_path, [2])
    with (
        locks.locked(tmp_path / "v2" / ".lock", exclusive=True, patience=0),
        pytest.raises(UserError, match=r"stayed locked for 0.05 seconds: .* run again"),
    ):
        act()


def test_large_shards_are_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL", 2000)
    monkeypatch.setattr(module, "_LARGE", 3000)
    put(tmp_path, range(10))
    for n in range(10, 40, 3):
        put(tmp_path, range(n, n + 3))
    before = set(SPACE.folder(tmp_path).iterdir())
    collected(tmp_path)
    assert shards(tmp_path) == 4
    assert len(before & set(SPACE.folder(tmp_path).glob("*.rows"))) == 1
    assert there(tmp_path, range(40)) == list(range(40))


def test_trouble_with_reading_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        put(tmp_path, [n])
    pread = os.pread

    def out_of_memory(handle: int, size: int, offset: int) -> bytes:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    def bad_sector(handle: int, size: int, offset: int) -> bytes:
        monkeypatch.setattr(os, "pread", pread)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", out_of_memory)
    with pytest.raises(UserError, match="Cannot allocate memory"):
        FeatureStore(tmp_path).gc()
    assert shards(tmp_path) == 3
    monkeypatch.setattr(os, "pread", bad_sector)
    FeatureStore(tmp_path).gc()
    assert there(tmp_path, range(3)) == [1, 2]
    assert shards(tmp_path) == 1
