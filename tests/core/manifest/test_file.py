"""The manifest as a file, the data version, and what changed between two versions."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tl_core.errors import FormatError
from tl_core.manifest import Manifest, compare

from .sources import classes, fill, read, table, texts


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
