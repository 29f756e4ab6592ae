"""Folders and tables as people lay them out: classes, splits, columns, file formats."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tl_core.digests import text_digest
from tl_core.errors import UserError
from tl_core.manifest.modality import suffix_of

from .sources import classes, fill, read, sizes, table, texts


def test_class_folders(tmp_path: Path) -> None:
    fill(
        tmp_path, [*classes(n=10), "LICENSE", "README.txt", "dataset.json", ".DS_Store", "cat/.hidden", "dog/Thumbs.db"]
    )
    manifest = read(tmp_path, base=tmp_path.parent)
    assert manifest.table["id"].to_pylist() == sorted(classes(n=10))
    assert manifest.targets.classes == ("cat", "dog")
    assert manifest.targets.task == "multiclass"
    assert manifest.modality == "pixels"
    assert manifest.root == tmp_path.name
    assert sizes(manifest) == {"train": 12, "val": 4, "test": 4}
    assert manifest.counts()["test"] == {"cat": 2, "dog": 2}
    assert any("modality pixels (guessed: 20 of 20 files" in note for note in manifest.notes)
    sample = manifest.sample(0)
    assert sample.source == tmp_path / "cat" / "0.pix"
    assert sample.digest == text_digest("ok cat/0.pix")


def test_official_splits_of_folders_are_kept(tmp_path: Path) -> None:
    fill(tmp_path, [*classes("train/"), *classes("validation/", 2), *classes("Test/", 3), "train/notes.md"])
    manifest = read(tmp_path)
    assert sizes(manifest) == {"train": 10, "val": 4, "test": 6}
    assert not any("split" in note for note in manifest.notes)


def test_a_missing_val_split_comes_out_of_train_alone(tmp_path: Path) -> None:
    manifest = read(fill(tmp_path, [*classes("train/", 10), *classes("test/", 3)]))
    assert sizes(manifest) == {"train": 16, "val": 4, "test": 6}
    assert manifest.table["split"].to_pylist()[:6] == ["test"] * 6
    assert any(note.startswith("no val split in the data: 4 of 20 training rows taken") for note in manifest.notes)


def test_a_class_named_train_is_a_class(tmp_path: Path) -> None:
    assert read(fill(tmp_path, classes(names=("bus", "train")))).targets.classes == ("bus", "train")


def test_integer_classes_are_in_the_order_of_their_values(tmp_path: Path) -> None:
    assert read(fill(tmp_path, classes(names=("10", "9", "1")))).targets.classes == ("1", "9", "10")


def test_names_are_compared_in_composed_form(tmp_path: Path) -> None:
    composed, decomposed = "café", unicodedata.normalize("NFD", "café")
    fill(tmp_path, [f"{composed}/1.pix", f"{composed}/2.pix", f"{decomposed}/1.pix", f"{decomposed}/3.pix", *classes()])
    manifest = read(tmp_path)
    assert manifest.targets.classes == (composed, "cat", "dog") or manifest.targets.classes == ("cat", "café", "dog")
    ids = manifest.table["id"].to_pylist()
    assert len(set(ids)) == len(ids) == 14
    assert f"{composed}/1.pix#2" in ids
    assert all(Path(s.source).is_file() for s in manifest.samples(manifest.rows()))


def test_files_deeper_in_a_class_folder_belong_to_it(tmp_path: Path) -> None:
    manifest = read(fill(tmp_path, [*classes(), "cat/more/9.pix"]))
    assert manifest.table["label"].to_pylist().count("cat") == 6
    assert "files in subfolders of cat (1) are labelled 'cat'" in manifest.notes


def test_text_files_in_class_folders(tmp_path: Path) -> None:
    manifest = read(fill(tmp_path, [name.replace(".pix", ".txt") for name in classes()]))
    assert manifest.modality == "words"
    assert isinstance(manifest.sample(0).source, Path)


def test_metadata_names_files_splits_labels_and_groups(tmp_path: Path) -> None:
    names = [f"a/{i}.pix" for i in range(12)]
    fill(tmp_path, names)
    rows = [(n, ("train", "dev", "test")[i // 2 % 3], "xy"[i % 2], f"g{i}") for i, n in enumerate(names)]
    table(tmp_path / "metadata.csv", rows[::-1], ("File Name", "split", "class", "who"))
    manifest = read(tmp_path)
    assert manifest.table["id"].to_pylist() == names[::-1]
    assert sizes(manifest) == {"train": 4, "val": 4, "test": 4}
    assert manifest.groups(manifest.rows()) is None
    assert "file column 'File Name' (guessed; data.file sets it)" in manifest.notes
    assert read(tmp_path, "data.group=who").groups(np.array([0, 1])) == ["g11", "g10"]


def test_tables_named_by_split(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", texts(12), ("text", "category"))
    table(tmp_path / "dev.csv", [("first", "yes"), ("second", "no")], ("text", "category"))
    table(tmp_path / "test.csv", [("third", "yes"), ("fourth", "no")], ("text", "category"))
    (tmp_path / "categories.json").write_text("[]")
    manifest = read(tmp_path)
    assert sizes(manifest) == {"train": 12, "val": 2, "test": 2}
    assert manifest.table["id"].to_pylist()[:1] == ["train.csv:2"]
    assert manifest.table["id"].to_pylist()[-1] == "test.csv:3"
    assert manifest.root == ""
    assert manifest.sample(0).source == "sentence number 0"
    assert "label column 'category' (guessed; data.label sets it)" in manifest.notes


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_the_same_rows_in_any_format(tmp_path: Path, suffix: str) -> None:
    rows = [('a "quoted"\nbreak, with\ttabs', "1"), ("ünïcode 😀 line", "0"), *texts(10, ("1", "0"))]
    path = tmp_path / f"data{suffix}"
    records = [{"text": text, "label": int(label)} for text, label in rows]
    if suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps(r, ensure_ascii=False) for r in records), encoding="utf-8-sig")
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        table(path, rows)
    manifest = read(path)
    assert manifest.table["source"].to_pylist() == [text for text, _ in rows]
    assert manifest.table["digest"].to_pylist() == [text_digest(text) for text, _ in rows]
    assert manifest.table["label"].to_pylist() == [label for _, label in rows]
    assert manifest.targets.classes == ("0", "1")
    assert not manifest.quarantined()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_semicolons_and_byte_order_marks(tmp_path: Path, encoding: str) -> None:
    lines = ["text;label", *(f"{text}, schön;{label}" for text, label in texts())]
    (tmp_path / "a.csv").write_text("\n".join(lines), encoding=encoding)
    assert read(tmp_path / "a.csv").table["source"][0].as_py() == "sentence number 0, schön"


def test_a_table_of_paths(tmp_path: Path) -> None:
    names = [f"pics/{i}.pix" for i in range(10)]
    fill(tmp_path, names)
    manifest = read(table(tmp_path / "list.csv", [(n, "ab"[i % 2]) for i, n in enumerate(names)], ("where", "kind")))
    assert manifest.modality == "pixels"
    assert "file column 'where' (guessed; data.file sets it)" in manifest.notes
    assert "label column 'kind' (guessed; data.label sets it)" in manifest.notes
    assert manifest.sample(3).source == tmp_path / "pics/3.pix"


def test_the_text_column_is_the_longest_and_can_be_named(tmp_path: Path) -> None:
    rows = [(i, f"{'long ' * 9}{i}", f"s{i}", "ab"[i % 2]) for i in range(10)]
    path = table(tmp_path / "a.csv", rows, ("nr", "note", "short", "label"))
    assert "text column 'note' (guessed; data.text sets it)" in read(path).notes
    assert read(path, "data.text=short").sample(1).source == "s1"


def test_a_file_column_is_never_read_as_texts(tmp_path: Path) -> None:
    names = fill(tmp_path, [f"pics/IMG_{i}" for i in range(10)])
    path = table(names / "metadata.csv", [(f"pics/IMG_{i}", "ab"[i % 2], f"a long note {i}") for i in range(10)],
                 ("file", "label", "remark"))  # fmt: skip
    with pytest.raises(UserError, match=r"can't tell the modality of .*no suffix \(10\)"):
        read(path)
    assert read(path, "modality=pixels").sample(3).source == tmp_path / "pics/IMG_3"
    assert read(path, "modality=words", "data.text=remark", "data.label=label").sample(3).source == "a long note 3"


def test_texts_beside_files_are_read_where_the_user_says_so(tmp_path: Path) -> None:
    fill(tmp_path, [f"{i}.pix" for i in range(12)])
    rows = [(f"{i}.pix", text, label) for i, (text, label) in enumerate(texts())]
    path = table(tmp_path / "a.csv", rows, ("image", "review", "label"))
    assert read(path).modality == "pixels"
    assert read(path, "modality=words").sample(0).source == "sentence number 0"
    assert read(path, "data.text=review").modality == "words"


@pytest.mark.parametrize("name", ["a/b.JPG", "b.tar.gz", ".hidden", "a.b/c", "a.", "..b", "a/.b.c", "", "x", "a b.é"])
def test_the_kind_of_a_file_is_what_pathlib_says(name: str) -> None:
    assert suffix_of(name) == PurePosixPath(name).suffix.lower()
