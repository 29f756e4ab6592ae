"""Rows in, aligned rows out, whatever is wrong with some of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tl_flows import cli, prediction_io
from tl_flows.prediction_io import Item

from tl_core.bundle import ModelBundle, Prediction
from tl_core.errors import UserError
from tl_core.types import Loader, Source


class Texts(Loader):
    modality = "words"
    extensions = frozenset({".txt"})
    inline = True

    def decode(self, source: Source) -> Any:
        return source

    def render(self, source: Source) -> str:
        return ""


class Curves(Texts):
    modality = "curves"
    extensions = frozenset({".csv"})
    inline = False


def found(
    *paths: Path, loader: Loader | None = None, texts: Sequence[str] = (), column: str | None = None
) -> list[Item]:
    loader = loader or Texts()
    return prediction_io.items(paths, texts, loader, [loader], column)


def test_files_folders_tables_and_texts_in_the_order_given(tmp_path: Path) -> None:
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    for name in ("b.txt", "sub/a.txt", ".hidden.txt", "other.png"):
        (tmp_path / "folder" / name).write_text("text")
    (tmp_path / "t.csv").write_text("kind,Text\nx,first\ny,\nz,third\nbroken\n")
    rows = found(tmp_path / "missing.txt", tmp_path / "folder", tmp_path / "t.csv", texts=["a", "b"])
    assert rows == [
        Item(str(tmp_path / "missing.txt"), None, "missing file"),
        Item(str(tmp_path / "folder/b.txt"), tmp_path / "folder/b.txt"),
        Item(str(tmp_path / "folder/sub/a.txt"), tmp_path / "folder/sub/a.txt"),
        Item("t.csv:2", "first"),
        Item("t.csv:3", ""),
        Item("t.csv:4", "third"),
        Item("t.csv:5", None, "malformed row: 1 cells, the header has 2"),
        Item("text 1", "a"),
        Item("text 2", "b"),
    ]


def test_a_table_of_files_is_read_from_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("1,2")
    (tmp_path / "t.jsonl").write_text('{"file_name": "one.csv"}\n{"file_name": "two.csv"}\n{}\n')
    assert found(tmp_path / "t.jsonl", loader=Curves()) == [
        Item("t.jsonl:1", tmp_path / "one.csv"),
        Item("t.jsonl:2", None, "missing file"),
        Item("t.jsonl:3", None, "no value in column 'file_name'"),
    ]


def test_a_table_that_the_modality_reads_is_a_sample(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("1,2")
    assert found(tmp_path / "one.csv", loader=Curves()) == [Item(str(tmp_path / "one.csv"), tmp_path / "one.csv")]


def test_the_user_names_the_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("note,text\nn,t\n")
    assert found(tmp_path / "t.csv", column="note") == [Item("t.csv:2", "n")]
    with pytest.raises(UserError, match=r"no column 'not'; did you mean note\? in .*; name one with --column: note, t"):
        found(tmp_path / "t.csv", column="not")


def test_what_can_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"no file or text column in .*; name one with --column: a, b"):
        found(tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"no words files in .*; read are \.txt"):
        found(tmp_path)
    with pytest.raises(UserError, match="--text goes with text models; this one reads curves files"):
        found(loader=Curves(), texts=["a"])


class Model:
    """Labels a source by its length."""

    def predict(self, sources: Sequence[Source], ids: Sequence[str]) -> list[Prediction]:
        return [
            Prediction(i, f"len {len(str(s))}", 0.5, {"x": 0.5}, unusual=float(len(str(s)) - 1))
            for s, i in zip(sources, ids)
        ]


ROWS = [Item("a", "1"), Item("b", None, "missing file"), Item("c", "333")]


def test_predictions_stay_aligned_with_the_rows() -> None:
    predictions = prediction_io.predict(cast(ModelBundle, Model()), ROWS)
    assert [(p.id, p.label, p.error) for p in predictions] == [
        ("a", "len 1", None),
        ("b", None, "missing file"),
        ("c", "len 3", None),
    ]
    assert list(prediction_io.as_lines(predictions)) == [
        "a  len 1  0.5000",
        "b  -      error: missing file",
        "c  len 3  0.5000  unusual 2.00",
    ]
    assert list(prediction_io.as_lines([Prediction("v", value=2.5)])) == ["v  2.5"]
    numbers = [Prediction("v", value=2.5, unusual=1.2345), Prediction("w", "", None, unusual=1.5)]
    assert list(prediction_io.as_lines(numbers)) == ["v  2.5     unusual 1.23", "w  (none)          unusual 1.50"]


def test_the_command_counts_what_is_unlike_the_training_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = SimpleNamespace(notes=(), loader=Texts(), predict=Model().predict)
    monkeypatch.setattr(ModelBundle, "load", lambda *_: model)
    for texts, told in (
        (["a", "ab", "abc"], "tl: 1 of 3 rows are unlike the training data (unusual above 1)"),
        (["a"], ""),
    ):
        assert cli.main(["predict", str(tmp_path), *(part for text in texts for part in ("--text", text))]) == 0
        said = capsys.readouterr()
        assert said.err.startswith(told) if told else said.err == ""
        assert len(said.out.splitlines()) == len(texts)


def test_csv_and_jsonl_hold_the_same_rows(tmp_path: Path) -> None:
    predictions = prediction_io.predict(cast(ModelBundle, Model()), ROWS)
    prediction_io.write(tmp_path / "p.csv", predictions)
    prediction_io.write(tmp_path / "p.jsonl", predictions)
    assert (tmp_path / "p.csv").read_text().splitlines() == [
        "id,label,probability,value,unusual,error",
        "a,len 1,0.5,,0.0,",
        "b,,,,,missing file",
        "c,len 3,0.5,,2.0,",
    ]
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [(row["id"], row["error"]) for row in lines] == [("a", None), ("b", "missing file"), ("c", None)]
    assert lines[0]["probabilities"] == {"x": 0.5}
    assert [row["unusual"] for row in lines] == [0.0, None, 2.0]
