"""Scanning folders and tables: layouts, columns, tasks, quarantine, faults; the manifest file."""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tl_core.config import load_config
from tl_core.digests import text_digest
from tl_core.errors import DecodeError, FormatError, UserError
from tl_core.manifest import Manifest, compare, scan
from tl_core.types import Loader, Source


class Pixels(Loader):
    """Reads .pix files: `ok` and anything; counts its checks."""

    modality = "pixels"
    extensions = frozenset({".pix"})

    def __init__(self) -> None:
        self.checked: list[str] = []

    def decode(self, source: Source) -> Any:
        assert isinstance(source, Path)
        self.checked.append(source.name)
        content = source.read_bytes()
        if content.startswith(b"boom"):
            raise RuntimeError("decoder\nexploded")
        if not content.startswith(b"ok"):
            raise DecodeError("truncated")
        return content

    def render(self, source: Source) -> str:
        return ""


class Waves(Pixels):
    modality = "waves"
    extensions = frozenset({".wav"})


class Words(Pixels):
    modality = "words"
    extensions = frozenset()
    inline = True

    def decode(self, source: Source) -> Any:
        if source == "123":
            raise DecodeError("no letters")
        return source


LOADERS = [Pixels(), Waves(), Words()]


def read(path: Path, *settings: str, loaders: Sequence[Loader] = LOADERS, **options: Any) -> Manifest:
    return scan(path, load_config(None, settings), loaders, progress=False, **options)


def fill(root: Path, files: Iterable[str], content: str = "ok") -> Path:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content} {name}", encoding="utf-8")
    return root


def classes(prefix: str = "", n: int = 5, names: Sequence[str] = ("cat", "dog")) -> list[str]:
    return [f"{prefix}{name}/{i}.pix" for name in names for i in range(n)]


def table(path: Path, rows: Sequence[Sequence[object]], header: Sequence[str] = ("text", "label")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([header, *rows])
    return path


def texts(n: int = 12, labels: Sequence[str] = ("yes", "no")) -> list[tuple[str, str]]:
    return [(f"sentence number {i}", labels[i % len(labels)]) for i in range(n)]


def reasons(manifest: Manifest) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in manifest.quarantined()}


def sizes(manifest: Manifest) -> dict[str, int]:
    return {split: len(manifest.rows(split)) for split in ("train", "val", "test")}


# layouts


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


# tasks


@pytest.mark.parametrize(
    ("labels", "header", "task"),
    [
        (["a", "b"], "label", "multiclass"),
        (["1", "2", "5"], "rating", "multiclass"),
        (["0.5", "1.5", "2"], "score", "regression"),
        ([str(i) for i in range(30)], "score", "regression"),
        (["a|b", "b", ""], "label", "multilabel"),
        (["a", "b"], "Tags", "multilabel"),
    ],
)
def test_the_task_shows_in_the_labels(tmp_path: Path, labels: list[str], header: str, task: str) -> None:
    rows = [(f"sentence {i}", labels[i % len(labels)]) for i in range(45)]
    manifest = read(table(tmp_path / "a.csv", rows, ("text", header)))
    assert manifest.targets.task == task
    assert f"task {task} (guessed; data.task sets it)" in manifest.notes
    assert not manifest.quarantined()


def test_lists_are_labels(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "topics": [["b", "a", "b"], [], ["c"], None][i % 4]} for i in range(20)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    manifest = read(path, "data.label=topics")
    assert manifest.table["label"].to_pylist()[:4] == ["a|b", "", "c", ""]
    assert manifest.target_array(np.arange(4)).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert manifest.target_array(np.arange(4)).dtype == np.float32
    with pytest.raises(UserError, match=r"label 'a' .*holds data.separator 'a'"):
        read(path, "data.label=topics", "data.separator=a")


def test_targets(tmp_path: Path) -> None:
    numbers = read(table(tmp_path / "n.csv", [(f"text {i}", i / 2) for i in range(30)], ("text", "score")))
    assert numbers.target_array(np.array([3, 1])).tolist() == [1.5, 0.5]
    assert numbers.counts() == {"train": {"rows": 18}, "val": {"rows": 6}, "test": {"rows": 6}}
    words = read(table(tmp_path / "w.csv", [*texts(), ("no label here", "")]))
    assert words.target_array(np.array([0, 1])).tolist() == [1, 0]
    assert words.target_array(np.array([], int)).shape == (0,)
    with pytest.raises(ValueError, match="row 12 has no label"):
        words.target_array(np.array([0, 12]))


def test_unusable_labels(tmp_path: Path) -> None:
    rows = [(f"text {i}", v) for i, v in enumerate([*[i / 4 for i in range(30)], "inf", "nan", "", "much", "1_0"])]
    manifest = read(table(tmp_path / "a.csv", rows, ("text", "score")), "data.task=regression")
    assert list(reasons(manifest).values()) == [
        "label 'inf' is no finite number", "label 'nan' is no finite number", "no label",
        "label 'much' is no finite number", "label '1_0' is no finite number",
    ]  # fmt: skip


# quarantine


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


# faults


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


# the file


def test_a_manifest_survives_its_file(tmp_path: Path) -> None:
    root = fill(tmp_path / "data", [*classes(), "cat/x.pdf"])
    manifest = read(root, base=tmp_path)
    manifest.save(tmp_path / "a" / "m.parquet")
    loaded = Manifest.load(tmp_path / "a" / "m.parquet", tmp_path)
    assert loaded == manifest
    assert loaded.sample(0) == manifest.sample(0)
    assert loaded.sample(0).source == root / "cat/0.pix"
    loaded.save(tmp_path / "b.parquet")
    assert (tmp_path / "b.parquet").read_bytes() == (tmp_path / "a" / "m.parquet").read_bytes()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["m.parquet"]
    assert read(root, base=tmp_path / "other").root == str(root)


def test_files_that_are_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no manifest at .*; run the step `version` first"):
        Manifest.load(tmp_path / "m.parquet", tmp_path)
    (tmp_path / "m.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(FormatError, match="is no manifest or damaged"):
        Manifest.load(tmp_path / "m.parquet", tmp_path)
    for facts in ({b"tl.manifest": b'{"format_version": 1}'}, {b"other": b"{}"}, {}):
        pq.write_table(pa.table({"id": ["a"]}).replace_schema_metadata(facts), tmp_path / "m.parquet")
        with pytest.raises(FormatError, match="is no manifest or damaged"):
            Manifest.load(tmp_path / "m.parquet", tmp_path)
    newer = pa.table({"id": ["a"]}).replace_schema_metadata({b"tl.manifest": b'{"format_version": 99}'})
    pq.write_table(newer, tmp_path / "m.parquet")
    with pytest.raises(FormatError, match="format version 99, this tl reads up to 1; update tl"):
        Manifest.load(tmp_path / "m.parquet", tmp_path)


def test_the_data_version_follows_the_data(tmp_path: Path) -> None:
    root = fill(tmp_path / "one", classes())
    version = read(root).data_version
    assert read(fill(tmp_path / "two", classes())).data_version == version
    (root / "cat" / "0.pix").touch()
    assert read(root).data_version == version
    (root / "cat" / "0.pix").write_bytes(b"ok other")
    assert read(root).data_version != version


# changes


def test_changes_of_files(tmp_path: Path) -> None:
    root = fill(tmp_path, classes())
    old = read(root)
    (root / "cat" / "0.pix").write_bytes(b"ok now")
    (root / "cat" / "1.pix").rename(root / "dog" / "new.pix")
    changes = compare(old, read(root))
    assert (changes.added, changes.removed, changes.modified, changes.relabelled, changes.unchanged) == (1, 1, 1, 0, 8)
    assert changes.examples == {"added": ["dog/new.pix"], "removed": ["cat/1.pix"], "modified": ["cat/0.pix"]}
    first = compare(None, old)
    assert (first.added, first.unchanged) == (10, 0)


def test_changes_of_tables_whose_rows_shift(tmp_path: Path) -> None:
    rows = [*texts(20), ("twice", "yes"), ("twice", "yes")]
    old = read(table(tmp_path / "a.csv", rows))
    rows = [("brand new", "no"), *rows[1:]]  # one in the place of another
    rows = [*rows[:5], ("inserted", "yes"), *rows[5:], ("twice", "yes")]
    rows[3] = (rows[3][0], "yes" if rows[3][1] == "no" else "no")
    changes = compare(old, read(table(tmp_path / "a.csv", rows)))
    assert (changes.added, changes.removed, changes.modified, changes.relabelled) == (2, 0, 1, 1)
    assert changes.unchanged == 20
    assert changes.examples["relabelled"] == ["a.csv:5"]
    assert changes.examples["modified"] == ["a.csv:2"]
