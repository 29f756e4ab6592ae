"""A sample set of files as a folder: `<split>/<label>/<file>` and the table metadata.csv that lists them."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

TABLE = "metadata.csv"
PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>503</title></head><body>Service unavailable, try again later</body></html>\n"
)


@dataclass(frozen=True)
class Row:
    """One row of the table and the bytes of its file. data: None where the file is missing."""

    file: str
    label: str
    split: str
    group: str
    data: bytes | None


def with_bad_rows(rows: Sequence[Row], spare: Row, rng: np.random.Generator) -> list[Row]:
    """The rows and six more as real folders have them, which a scan should catch; all stay sorted by file.

    An empty file, one cut short, an error page under a sample's name, a row without its file, the spare row without
    its label, and a train row whose file is a copy of a test row's of another label. The rows themselves stay good.
    """
    train = [row for row in rows if row.split == "train"]
    test = [row for row in rows if row.split == "test"]
    empty, cut, lost, copy = (train[int(i)] for i in rng.choice(len(train), 4, replace=False))
    page, copied = test[int(rng.integers(len(test)))], next(row for row in test if row.label != copy.label)
    bad = [
        replace(empty, data=b""),
        replace(cut, data=(cut.data or b"")[: len(cut.data or b"") * 2 // 5]),
        replace(page, data=PAGE),
        replace(lost, data=None),
        replace(copy, data=copied.data),
    ]
    renamed = [_renamed(row, letter) for row, letter in zip(bad, "abcde")]
    unsorted = replace(_renamed(replace(spare, label="unsorted"), "f"), label="")
    return sorted([*rows, *renamed, unsorted], key=lambda row: row.file)


def _renamed(row: Row, letter: str) -> Row:
    """The row with a file name of its own."""
    suffix = PurePosixPath(row.file).suffix
    return replace(row, file=f"{row.split}/{row.label}/{row.group}_{letter}{suffix}")


def require_free(out: Path) -> None:
    """Raises SystemExit where a folder holds anything but a former sample set."""
    if out.exists() and any(out.iterdir()) and not (out / TABLE).is_file():
        raise SystemExit(f"{out} holds something else than a sample set (no {TABLE} in it); give an empty folder")


def write(rows: Sequence[Row], out: Path, group: str) -> None:
    """Write the files and the table, in place of a former set. group: the name of the group column."""
    for split in ("train", "test"):
        shutil.rmtree(out / split, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    with (out / TABLE).open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("file", "label", "split", group))
        table.writerows((row.file, row.label, row.split, row.group) for row in rows)
    for row in rows:  # after the table, by which a killed call's folder is known as a set that may be replaced
        if row.data is not None:
            (out / row.file).parent.mkdir(parents=True, exist_ok=True)
            (out / row.file).write_bytes(row.data)
