"""Columns by which results are compared: kept beside the data, and never a part of what is learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tl_core.errors import UserError
from tl_core.manifest import Manifest

from .sources import classes, fill, read, reasons, table, texts

HEADER = ("text", "label", "device", "age", "speaker")


def people(n: int = 40) -> list[tuple[str, str, str, str, str]]:
    return [(text, label, ("phone", "desk", "")[i % 3], str(20 + i), f"s{i % 4}") for i, (text, label) in
            enumerate(texts(n))]  # fmt: skip


def test_attributes_are_kept_by_row(tmp_path: Path) -> None:
    manifest = read(table(tmp_path / "a.csv", people(), HEADER), "data.attributes=[device, age]", "data.group=speaker")
    manifest.save(tmp_path / "m.parquet")
    found = Manifest.load(tmp_path / "m.parquet", tmp_path).attributes(np.array([3, 0, 1, 2]))
    assert list(found) == ["speaker", "device", "age"]
    assert found["speaker"] == ["s3", "s0", "s1", "s2"]
    assert found["device"] == ["phone", "phone", "desk", None]
    assert found["age"] == ["20 to 29"] * 4


def test_attributes_change_nothing_else(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", people(), HEADER)
    plain, rich = read(path), read(path, "data.attributes=[device, age]")
    assert rich.table.select(plain.table.column_names).equals(plain.table)
    assert list(rich.samples(rich.rows())) == list(plain.samples(plain.rows()))
    assert (rich.data_version, rich.notes, rich.targets) == (plain.data_version, plain.notes, plain.targets)
    assert plain.attributes(plain.rows()) == {}
    moved = [(*row[:2], "tablet", *row[3:]) for row in people()]
    other = read(table(tmp_path / "b" / "a.csv", moved, HEADER), "data.attributes=[device, age]")
    assert other.data_version == rich.data_version
    assert set(other.attributes(other.rows())["device"]) == {"tablet"}


def test_a_column_that_is_guessed_for_something_stays_guessed(tmp_path: Path) -> None:
    rows = [(text, label, "test" if i % 4 == 0 else "train") for i, (text, label) in enumerate(texts(20))]
    path = table(tmp_path / "a.csv", rows, ("text", "label", "subset"))
    plain, rich = read(path), read(path, "data.attributes=[subset, label]")
    assert rich.table["split"].equals(plain.table["split"])
    assert list(rich.attributes(rich.rows())) == ["subset", "label"]


def test_a_manifest_without_attributes_has_the_bytes_that_it_always_had(tmp_path: Path) -> None:
    manifest = read(fill(tmp_path / "data", classes()))
    manifest.save(tmp_path / "m.parquet")
    stored = pq.read_table(tmp_path / "m.parquet")
    assert stored.column_names == ["id", "digest", "source", "inline", "label", "split", "group", "reason"]
    assert b"group_column" not in stored.schema.metadata[b"tl.manifest"]


def test_an_older_manifest_with_groups_calls_them_group(tmp_path: Path) -> None:
    manifest = read(table(tmp_path / "a.csv", people(), HEADER), "data.group=speaker")
    manifest.save(tmp_path / "m.parquet")
    stored = pq.read_table(tmp_path / "m.parquet")
    facts = stored.schema.metadata[b"tl.manifest"].replace(b'"group_column": "speaker", ', b"")
    pq.write_table(stored.replace_schema_metadata({b"tl.manifest": facts}), tmp_path / "m.parquet")
    assert list(Manifest.load(tmp_path / "m.parquet", tmp_path).attributes(np.array([0]))) == ["group"]


def test_columns_that_are_not_there_are_refused_together(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", people(), HEADER)
    with pytest.raises(UserError) as error:
        read(path, "data.attributes=[divice, age, agee]", "data.group=speker")
    lines = str(error.value).splitlines()
    assert lines == [
        f"data.group: no column 'speker' in {path}; did you mean speaker? columns: {', '.join(HEADER)}",
        f"data.attributes: no column 'divice' in {path}; did you mean device? columns: {', '.join(HEADER)}",
        f"data.attributes: no column 'agee' in {path}; did you mean age? columns: {', '.join(HEADER)}",
    ]
    table(tmp_path / "two" / "train.csv", people(), HEADER)
    table(tmp_path / "two" / "test.csv", texts())
    with pytest.raises(UserError, match=r"no column 'device' in .*test\.csv; columns: text, label"):
        read(tmp_path / "two", "data.attributes=[device]")


def test_class_folders_have_no_attributes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.attributes 'device'.*list the files in a metadata.csv"):
        read(fill(tmp_path, classes()), "data.attributes=[device]")


def test_a_row_that_cannot_be_read_has_no_value(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", people(), HEADER)
    path.write_text(path.read_text() + "cut off,yes\n")
    manifest = read(path, "data.attributes=[device]")
    assert len(reasons(manifest)) == 1
    assert manifest.attributes(np.array([40]))["device"] == [None]


def ages(tmp_path: Path, values: list[str]) -> list[str | None]:
    rows = [(text, label, value) for (text, label), value in zip(texts(len(values)), values)]
    manifest = read(table(tmp_path / "a.csv", rows, ("text", "label", "age")), "data.attributes=[age]")
    return manifest.attributes(manifest.rows())["age"]


def test_numbers_of_many_values_are_cut_into_quarters(tmp_path: Path) -> None:
    found = ages(tmp_path, [*map(str, range(101, 141)), "unknown", ""])
    assert found[:40] == [name for name in ("101 to 110", "111 to 120", "121 to 130", "131 to 140") for _ in range(10)]
    assert found[40:] == ["unknown", None]


def test_equal_numbers_share_a_quarter(tmp_path: Path) -> None:
    found = ages(tmp_path, ["0"] * 30 + [f"{i}.5" for i in range(1, 21)])
    assert found[:30] == ["0"] * 30
    assert sorted(set(found[30:]), key=str) == ["1.5 to 8.5", "9.5 to 20.5"]


@pytest.mark.parametrize("values", [list("123456") * 5, [f"r{i}" for i in range(30)], ["1", "2", "b"] * 9])
def test_what_has_few_values_or_is_no_number_stays(tmp_path: Path, values: list[str]) -> None:
    assert ages(tmp_path, values) == values
