"""Every unusable sample gets its reason and keeps its row."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from tl_core.errors import UserError

from .sources import Pixels, classes, fill, read, reasons, table, texts


def test_every_unusable_file_has_its_reason_and_its_row(tmp_path: Path) -> None:
    root = fill(tmp_path / "data", [*classes(), "stray.pix", "cat/notes.pdf"])
    fill(tmp_path, ["outside.pix", "elsewhere/1.pix"])
    (root / "cat" / "1.pix").write_bytes(b"")
    (root / "cat" / "2.pix").write_bytes(b"broken")
    (root / "cat" / "3.pix").write_bytes(b"boom")
    (root / "dog" / "l.pix").symlink_to(tmp_path / "outside.pix")
    (root / "dog" / "gone.pix").symlink_to(tmp_path / "nothing.pix")
    (root / "dog" / "inside.pix").symlink_to(root / "dog" / "1.pix")
    (root / "dog" / "far").symlink_to(tmp_path / "elsewhere")
    (root / "dog" / "loop").symlink_to(root)
    os.mkfifo(root / "dog" / "pipe.pix")
    (root / "dog" / os.fsdecode(b"\xff.pix")).write_bytes(b"ok")
    manifest = read(root)
    assert reasons(manifest) == {
        "cat/1.pix": "empty file",
        "cat/2.pix": "truncated",
        "cat/3.pix": "unreadable: decoder",
        "cat/notes.pdf": "wrong kind: .pdf is no pixels file",
        "dog/far": "path leaves the data folder: it is a link",
        "dog/gone.pix": "path leaves the data folder: it is a link",
        "dog/l.pix": "path leaves the data folder: it is a link",
        "dog/pipe.pix": "not a file",
        "dog/\\xff.pix": "file name is not valid UTF-8",
        "stray.pix": "no label",
    }
    assert manifest.table.num_rows == 18
    assert manifest.quarantined()[0]["row"] == str(manifest.table["id"].to_pylist().index("cat/1.pix"))
    manifest.write_quarantine(tmp_path / "quarantine.csv")
    with (tmp_path / "quarantine.csv").open(newline="") as stream:
        assert list(csv.DictReader(stream)) == manifest.quarantined()
    with pytest.raises(UserError, match=r"10 of 18 samples are unusable \(55.6%; data.max_bad allows 1.0%\)"):
        manifest.require_usable(0.01)
    manifest.require_usable(0.6)


def test_a_link_that_data_versioning_made_is_trusted(tmp_path: Path) -> None:
    root = fill(tmp_path / "data", classes())
    (root / "cat" / "0.pix").rename(tmp_path / "cached")
    (root / "cat" / "0.pix").symlink_to(tmp_path / "cached")
    assert list(reasons(read(root))) == ["cat/0.pix"]
    manifest = read(root, digests={"cat/0.pix": "d" * 32})
    assert not manifest.quarantined()
    assert manifest.sample(0).digest == "d" * 32


def test_paths_of_a_table_must_stay_in_its_folder(tmp_path: Path) -> None:
    root = fill(tmp_path / "data", [f"a/{i}.pix" for i in range(9)])
    fill(tmp_path, ["out.pix"])
    bad = ["../out.pix", str(tmp_path / "out.pix"), "C:\\x.pix", "a/../../out.pix", "a/none.pix", "", "a"]
    good = ["a/../a/0.pix", "./a/1.pix", "a\\2.pix", *(f"a/{i}.pix" for i in range(3, 9)), "a/3.pix"]
    table(root / "metadata.csv", [(n, "xy"[i % 2]) for i, n in enumerate([*good, *bad])], ("file", "label"))
    manifest = read(root)
    assert reasons(manifest) == {
        "../out.pix": "path leaves the data folder: it goes up with '..'",
        str(tmp_path / "out.pix"): "path leaves the data folder: it is absolute",
        "C:\\x.pix": "path leaves the data folder: it is absolute",
        "../out.pix#2": "path leaves the data folder: it goes up with '..'",
        "a/none.pix": "missing file",
        "metadata.csv:17": "no file named",
        "a": "not a file",
    }
    assert manifest.table["id"].to_pylist()[:10] == [*(f"a/{i}.pix" for i in range(9)), "a/3.pix#2"]


def test_malformed_rows_are_named_and_keep_their_place(tmp_path: Path) -> None:
    lines = [b"text,label", *(f"{t},{y}".encode() for t, y in texts()), b"one,two,three", b"alone", b'"a" b,yes',
             b"caf\xe9,yes", b"fine,yes,", b" ,no", b"123,no"]  # fmt: skip
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines))
    manifest = read(tmp_path / "a.csv")
    assert reasons(manifest) == {
        "a.csv:14": "malformed row: 3 cells, the header has 2",
        "a.csv:15": "malformed row: 1 cells, the header has 2",
        "a.csv:16": "malformed row: ',' expected after '\"'; a quote inside a cell is written \"\"",
        "a.csv:17": "row is not valid UTF-8",
        "a.csv:19": "empty text",
        "a.csv:20": "no letters",
    }
    (tmp_path / "a.jsonl").write_text(
        "\n".join([*(json.dumps({"text": t, "label": y}) for t, y in texts()), "{", "[1]", '{"label": "yes"}',
                   '{"text": "\\ud800", "label": "yes"}'])
    )  # fmt: skip
    assert reasons(read(tmp_path / "a.jsonl")) == {
        "a.jsonl:13": "malformed row: not JSON",
        "a.jsonl:14": "malformed row: expected a JSON object, found list",
        "a.jsonl:15": "empty text",
        "a.jsonl:16": "row is not valid UTF-8",
    }


def test_checks_are_remembered_by_content(tmp_path: Path) -> None:
    root, cache = fill(tmp_path / "data", classes()), tmp_path / "cache"
    (root / "cat" / "2.pix").write_bytes(b"broken")
    (root / "cat" / "3.pix").write_bytes(b"boom")
    loader = Pixels()
    first = read(root, loaders=[loader], cache=cache)
    assert len(loader.checked) == 10
    (root / "cat" / "4.pix").rename(root / "dog" / "moved.pix")
    loader.checked.clear()
    again = read(root, loaders=[loader], cache=cache)
    assert loader.checked == ["3.pix"]  # a check that failed says nothing lasting
    assert reasons(again) == reasons(first)
    newer = Pixels()
    newer.version = 2  # type: ignore[misc]
    read(root, loaders=[newer], cache=cache)
    assert len(newer.checked) == 10


def test_contradictory_copies_give_way_to_the_split_that_matters_more(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", [*texts(), ("copy a", "yes"), ("copy b", "yes"), ("copy c", "no"), ("copy d", "yes")])
    table(tmp_path / "val.csv", [("fine", "yes"), ("well", "no"), ("copy b", "no"), ("copy c", "yes")])
    table(
        tmp_path / "test.csv", [("more", "yes"), ("less", "no"), ("copy a", "no"), ("copy c", "no"), ("copy d", "no")]
    )
    manifest = read(tmp_path)
    assert reasons(manifest) == {
        "train.csv:14": "same content in the test split with another label (test.csv:4)",
        "train.csv:15": "same content in the val split with another label (val.csv:4)",
        "train.csv:17": "same content in the test split with another label (test.csv:6)",
        "val.csv:5": "same content in the test split with another label (test.csv:5)",
    }
    assert "contents with the same label in several of the data's own splits: 1 (kept)" in manifest.notes
