"""New data arrive whole, only what differs is copied, and what can't be read is named."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from tl_flows.retraining.incoming import Copied, mirror

from tl_core.errors import UserError


def write(folder: Path, files: dict[str, str], age: float = 60.0) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        then = time.time() - age
        os.utime(path, (then, then))


def content(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def copy(tmp_path: Path) -> Copied:
    return mirror(tmp_path / "new", tmp_path / "data", tmp_path / "scratch")


def test_what_is_new_changed_and_gone_is_told_and_the_rest_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path / "new", {"cat/1.txt": "a", "cat/2.txt": "b", "dog/1.txt": "c"})
    assert copy(tmp_path) == Copied(("cat/1.txt", "cat/2.txt", "dog/1.txt"), (), ())
    untouched = (tmp_path / "data" / "cat" / "1.txt").stat()
    write(tmp_path / "new", {"cat/2.txt": "other", "bird/1.txt": "d"}, age=30)
    (tmp_path / "new" / "dog" / "1.txt").unlink()
    assert copy(tmp_path) == Copied(("bird/1.txt",), ("cat/2.txt",), ("dog/1.txt",))
    assert content(tmp_path / "data") == {"bird/1.txt": "d", "cat/1.txt": "a", "cat/2.txt": "other"}
    assert (tmp_path / "data" / "cat" / "1.txt").stat().st_ino == untouched.st_ino
    assert not (tmp_path / "data" / "dog").exists()
    assert not copy(tmp_path).any


def test_a_change_of_the_same_size_within_the_tick_of_a_first_copy_is_seen(tmp_path: Path) -> None:
    write(tmp_path / "new", {"a.txt": "one"}, age=0)
    copy(tmp_path)
    before = (tmp_path / "new" / "a.txt").stat()
    (tmp_path / "new" / "a.txt").write_text("two")
    os.utime(tmp_path / "new" / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert copy(tmp_path).changed == ("a.txt",)
    assert content(tmp_path / "data") == {"a.txt": "two"}


def test_a_file_that_became_a_folder_and_the_other_way_round(tmp_path: Path) -> None:
    write(tmp_path / "new", {"a": "file", "b/inner": "x"})
    copy(tmp_path)
    (tmp_path / "new" / "a").unlink()
    (tmp_path / "new" / "b" / "inner").unlink()
    (tmp_path / "new" / "b").rmdir()
    write(tmp_path / "new", {"a/inner": "y", "b": "file now"})
    copy(tmp_path)
    assert content(tmp_path / "data") == {"a/inner": "y", "b": "file now"}


def test_links_are_followed_and_a_copy_never_writes_through_one(tmp_path: Path) -> None:
    write(tmp_path, {"kept.txt": "precious", "new/a.txt": "fresh"})
    (tmp_path / "new" / "link.txt").symlink_to(tmp_path / "kept.txt")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").symlink_to(tmp_path / "kept.txt")
    copy(tmp_path)
    assert content(tmp_path / "data") == {"a.txt": "fresh", "link.txt": "precious"}
    assert not (tmp_path / "data" / "link.txt").is_symlink()
    assert (tmp_path / "kept.txt").read_text() == "precious"


def test_every_file_that_cant_be_read_is_named_at_once(tmp_path: Path) -> None:
    write(tmp_path / "new", {"good.txt": "x"})
    for name in ("lost.txt", "gone.txt"):
        (tmp_path / "new" / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"gone\.txt: No such file(.|\n)*lost\.txt"):
        copy(tmp_path)


def test_a_file_that_is_still_being_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tl_flows.retraining.incoming.PAUSE_SECONDS", 0.0)
    import shutil

    copy2 = shutil.copy2

    def grows(source: Path, target: Path) -> None:
        copy2(source, target)
        with source.open("a") as file:
            file.write("more")

    write(tmp_path / "new", {"big.txt": "start"})
    monkeypatch.setattr("tl_flows.retraining.incoming.shutil.copy2", grows)
    with pytest.raises(UserError, match=r"big\.txt changes while it is read"):
        copy(tmp_path)
    assert not (tmp_path / "data").exists() or content(tmp_path / "data") == {}


@pytest.mark.parametrize("made", [False, True])
def test_no_data_are_no_order_to_delete_all(tmp_path: Path, made: bool) -> None:
    write(tmp_path / "data", {"a.txt": "kept"})
    if made:
        (tmp_path / "new" / "empty").mkdir(parents=True)
    with pytest.raises(UserError, match="no data in" if not made else "holds no files"):
        copy(tmp_path)
    assert content(tmp_path / "data") == {"a.txt": "kept"}


def test_a_table_is_copied_alone(tmp_path: Path) -> None:
    write(tmp_path, {"new": "text,label\n"})
    assert copy(tmp_path) == Copied(("data",), (), ())
    assert not copy(tmp_path).any
    write(tmp_path, {"new": "text,label\nhello,a\n"})
    assert copy(tmp_path) == Copied((), ("data",), ())
    assert (tmp_path / "data").read_text().endswith("hello,a\n")


def test_a_reader_beside_a_copy_sees_whole_files_only(tmp_path: Path) -> None:
    texts = ["x" * 2_000_000, "y" * 2_000_000]
    write(tmp_path / "new", {"a.txt": texts[0]})
    copy(tmp_path)
    seen: set[str] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add((tmp_path / "data" / "a.txt").read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(20):
        write(tmp_path / "new", {"a.txt": texts[n % 2]}, age=100 - n)
        copy(tmp_path)
    stop.set()
    reader.join()
    assert seen <= set(texts)
