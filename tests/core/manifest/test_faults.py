"""Data that no run could use are refused with every fault at once."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tl_core.errors import UserError

from .sources import classes, fill, read, table, texts


@pytest.mark.parametrize(
    ("files", "settings", "message"),
    [
        ([], [], "the folder .* is empty: expected class folders"),
        (["a.txt"], [], "no samples in .*: expected class folders"),
        (classes(names=("cat",)), [], "the only class with usable samples is 'cat'; at least two classes are needed"),
        ([*classes(), "emu/1.pix", "fox/1.pix"], [], "classes with a single usable sample: 'emu', 'fox'; add samples"),
        ([*classes("train/"), *classes("test/", names=("emu", "dog"))], [], "no usable sample in train: 'emu'"),
        ([*classes("train/"), *classes("extra/")], [], "unknown split folders in .*: extra; allowed: train, val"),
        (["photo/train/cat/1.pix", "photo/test/cat/1.pix"], [], "holds splits .*metadata.csv"),
        ([*classes("test/")], [], "the data bring no train split"),
        (["cat/1.xyz", "dog/1.xyz"], [], r"can't tell the modality of .*\.xyz \(2\); set modality to one of: pixels"),
        (["cat/1.pix", "dog/1.wav"], [], "can't tell the modality"),
        (classes(), ["modality=pixel"], "no plugin for modality 'pixel'; did you mean pixels"),
        (classes(), ["data.label=kind", "data.group=who"], "data.label 'kind' and data.group 'who': class folders"),
        (["a.csv", "b.csv"], [], r"several tables \(a.csv, b.csv\)"),
        (["train.csv", "train.tsv"], [], "several tables for the train split: train.csv and train.tsv"),
        (classes(n=2), [], "too few distinct samples to take a val split out of train: some class needs at least 3"),
    ],
)  # fmt: skip
def test_faults_of_folders(tmp_path: Path, files: list[str], settings: list[str], message: str) -> None:
    fill(tmp_path, files)
    with pytest.raises(UserError, match=message):
        read(tmp_path, *settings)


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("", [], "is empty: expected a header and rows"),
        ("text,label\n", [], "is empty: expected rows"),
        ("text,text\na,b\n", [], "columns of the same name: text"),
        ("text,mood,x\na b,b,c\n", [], "no label column found in .*; set data.label to one of: text, mood, x"),
        ("text,mood\na b,b\n", ["data.label=mod"], "no column 'mod' .*did you mean mood.*columns: text, mood"),
        ("text,label\na,b\n", ["data.label=x", "data.split=y"], "(?s)label: no column 'x'.*split: no column 'y'"),
        ("text,label,split\na,b,holdout\n", [], r"unknown split names in column 'split' .*'holdout' \(1 rows\)"),
        ('text,label\na,b\n"open,c\nd,e\n', [], "a quote that opens in line 3 is never closed"),
        ("text,label\na,b\n", ["modality=pixels"], "no file column found in .*; set data.file to one of: text"),
        ("text,label\na,b\n", ["modality=pixels", "data.text=text"], "modality pixels reads files, and column 'text'"),
        ("text,label\n ,b\n ,c\n", [], "(?s)no usable sample among 2;.*a.csv:2: empty text\n  a.csv:3: empty text"),
        ("text,score\na,1.5\nb,1.5\nc,1.5\n", [], "all labels are 1.5; regression needs labels that differ"),
    ],
)  # fmt: skip
def test_faults_of_tables(tmp_path: Path, content: str, settings: list[str], message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.csv", *settings)


def test_all_faults_come_at_once_with_what_is_unusable(tmp_path: Path) -> None:
    fill(tmp_path, [*classes(), "emu/1.pix", "fox/1.pix", "fox/2.pix"])
    (tmp_path / "fox" / "2.pix").write_bytes(b"")
    (tmp_path / "emu" / "1.pix").write_bytes(b"")
    with pytest.raises(UserError) as fault:
        read(tmp_path)
    assert str(fault.value).splitlines() == [
        "classes with no usable sample: 'emu'; add samples of them, or leave these classes out",
        "classes with a single usable sample: 'fox'; add samples of them, or leave these classes out",
        "2 of 13 samples are unusable:",
        "  emu/1.pix: empty file",
        "  fox/2.pix: empty file",
    ]


def test_missing_paths_and_unreadable_tables(tmp_path: Path) -> None:
    fill(tmp_path, ["photos/a.pix", "notes.doc", "bad.parquet"])
    with pytest.raises(UserError, match=r"no such folder or table: .*photo; did you mean photos"):
        read(tmp_path / "photo")
    with pytest.raises(UserError, match=r"can't read .*notes.doc as a table: expected a folder or a file of .csv"):
        read(tmp_path / "notes.doc")
    with pytest.raises(UserError, match=r"unreadable table .*bad.parquet"):
        read(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"image": [{"bytes": b"x"}], "label": ["a"]}), tmp_path / "hub.parquet")
    with pytest.raises(UserError, match="embedded files; write them to a folder"):
        read(tmp_path / "hub.parquet", "data.file=image", "modality=pixels")
    table(tmp_path / "s" / "train.csv", texts())
    table(tmp_path / "s" / "test.csv", [("x",)], ("text",))
    with pytest.raises(UserError, match=r"no column 'label' in .*test.csv; columns: text"):
        read(tmp_path / "s")
