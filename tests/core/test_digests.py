"""md5 of files and texts, and the memory of them."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from tl_core import digests
from tl_core.digests import FileDigests, file_digest, text_digest

OLD = (1_000_000_000, 1_000_000_000)


def file_digests(paths: list[Path], cache: Path) -> list[str | OSError]:
    with closing(FileDigests(cache)) as known:
        return known.of([(str(path), path.stat()) for path in paths])


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as settled: its content is old, and of its status nothing is waited for."""
    monkeypatch.setattr(digests, "SETTLED_NS", -1)
    path = tmp_path / "data" / "café.bin"
    path.parent.mkdir()
    path.write_bytes(b"one")
    os.utime(path, OLD)
    return path


def test_a_text_has_the_digest_of_a_file_that_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("schön\n", encoding="utf-8")
    assert text_digest("schön\n") == file_digest(path) == hashlib.md5(path.read_bytes()).hexdigest()


def test_a_known_file_is_not_read_again(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = file_digests([file], tmp_path)
    monkeypatch.setattr(digests, "file_digest", lambda path: pytest.fail(f"{path} was read again"))
    assert file_digests([file], tmp_path) == first == [hashlib.md5(b"one").hexdigest()]


@pytest.mark.parametrize("change", ["size", "time", "inode", "path", "content alone"])
def test_each_part_of_the_key_counts(file: Path, tmp_path: Path, change: str) -> None:
    file_digests([file], tmp_path)
    after = b"longer" if change == "size" else b"two"
    if change == "path":
        file = file.rename(file.with_name("b.bin"))
        file.write_bytes(after)
        os.utime(file, OLD)
    elif change == "content alone":  # as many bytes, and the time set back
        time.sleep(0.05)  # the clock of a file system ticks slowly
        file.write_bytes(after)
        os.utime(file, OLD)
    elif change == "inode":
        other = file.with_name("other")
        other.write_bytes(after)
        os.utime(other, OLD)
        other.replace(file)
    else:
        file.write_bytes(after)
        os.utime(file, OLD if change == "size" else (OLD[0], OLD[1] + 1))
    assert file_digests([file], tmp_path) == [hashlib.md5(after).hexdigest()]


def test_a_file_that_changed_just_now_is_not_trusted_later(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    file.write_bytes(b"two")
    file_digests([file], tmp_path)
    status = file.stat()
    with closing(FileDigests(tmp_path)) as cache:
        file.write_bytes(b"six")  # the same size, perhaps within the same tick of the clock
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert cache.of([(str(file), file.stat())]) == [hashlib.md5(b"six").hexdigest()]


@pytest.mark.parametrize("damage", ["garbage", "old version", "folder"])
def test_a_damaged_cache_costs_only_the_memory(file: Path, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    file_digests([file], cache)
    database = cache / "digests.sqlite"
    if damage == "folder":
        database.unlink()
        database.mkdir()
    elif damage == "garbage":
        database.write_bytes(b"no database" * 1000)
    else:
        digests.sqlite3.connect(database).execute("PRAGMA user_version = 99").connection.close()
    assert file_digests([file], cache) == [hashlib.md5(b"one").hexdigest()]


def test_an_unreadable_file_is_an_error_of_its_own(file: Path) -> None:
    with closing(FileDigests(None)) as cache:
        gone, kept = cache.of([(str(file) + "x", file.stat()), (str(file), file.stat())])
    assert isinstance(gone, FileNotFoundError)
    assert kept == hashlib.md5(b"one").hexdigest()
    assert isinstance(file_digests([file.parent], file.parent / "cache")[0], OSError)
