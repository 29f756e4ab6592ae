"""What a scan knows before it opens any sample: the rows as the user's folder or table names them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from tl_core.types import Loader

SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "source", "label", "split", "group", "reason")])
ATTRIBUTE = "attribute:"  # before the name of an attribute, so that no column of a user's is taken for one of ours

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
ALLOWED_SPLITS = "train, val (valid, validation, dev), test"


@dataclass(frozen=True)
class Listing:
    """Rows in their final order, with the columns of SCHEMA and of the attributes; nothing is opened or checked yet.

    source: path relative to root, or inline text; label: as written, null where missing (lists joined by
    `data.separator`); split: train, val, test or null; reason: why the row could not even be listed.
    labelled_by: the label column, None where folders name the classes; lists: some label cell was a list.
    """

    rows: pa.Table
    root: Path
    loader: Loader
    inline: bool
    labelled_by: str | None = None
    lists: bool = False
    notes: tuple[str, ...] = ()


@dataclass
class Rows:
    """Rows being collected: lists of one block, flushed into Arrow batches. attributes: further columns."""

    attributes: tuple[str, ...] = ()
    batches: list[pa.RecordBatch] = field(default_factory=list)

    def add(
        self,
        ids: Sequence[str],
        sources: Sequence[str],
        labels: Sequence[str | None],
        splits: Sequence[str | None],
        groups: Sequence[str | None],
        reasons: Sequence[str | None],
        attributes: Sequence[Sequence[str | None]] = (),
    ) -> None:
        """Append a block of rows. attributes: the values of each further column."""
        columns = (ids, sources, labels, splits, groups, reasons, *attributes)
        arrays = [pa.array(values, pa.string()) for values in columns]
        self.batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def table(self) -> pa.Table:
        """All rows, with ids made unique."""
        return _unique_ids(pa.Table.from_batches(self.batches, self._schema))

    @property
    def _schema(self) -> pa.Schema:
        return pa.schema([*SCHEMA, *(pa.field(ATTRIBUTE + name, pa.string()) for name in self.attributes)])


def clean(text: str | None) -> str | None:
    """A name as tl compares it: stripped, in Unicode's composed form (NFC); None where nothing is left."""
    return unicodedata.normalize("NFC", text).strip() or None if text else None


def _unique_ids(table: pa.Table) -> pa.Table:
    """Rows that repeat an earlier row's id get `#2`, `#3`, ... behind it."""
    ids = table["id"]
    if len(ids.unique()) == len(ids):
        return table
    seen: dict[str, int] = {}
    names = []
    for name in ids.to_pylist():
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return table.set_column(0, "id", pa.array(names, pa.string()))
