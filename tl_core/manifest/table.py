"""The manifest: every sample of the data in a fixed order, with its label, its split and what is wrong with it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tl_core.errors import FormatError, UserError
from tl_core.manifest.attributes import compared
from tl_core.manifest.labels import encode_labels
from tl_core.manifest.listing import ATTRIBUTE
from tl_core.types import SPLITS, Sample, Targets
from tl_core.workspace import write_text

FORMAT_VERSION = 1
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),  # md5 hex; "" where there are no bytes to read
        pa.field("source", pa.string(), nullable=False),  # path relative to root with "/", or inline text
        pa.field("inline", pa.bool_(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("reason", pa.string()),  # why the row is quarantined; null where it is fine
    ]
)
QUARANTINE_COLUMNS = ("row", "id", "split", "label", "reason", "digest")
BATCH = 1024
LISTED = 20

_VERSIONED = ("id", "digest", "label", "split", "group", "reason")
_KEY = b"tl.manifest"


@dataclass(frozen=True)
class Manifest:
    """The table of all samples (columns of SCHEMA, then one per attribute) and what is known of them as a whole.

    root: folder that sources are relative to, "" for inline samples; a relative root is below `base`.
    separator: between the labels of a multi-label row. notes: what was guessed or decided, in sentences.
    data_version: md5 over id, digest, label, split, group and reason of all rows in order; attributes have no part in
    it, since they change neither the samples nor what a model learns from them. group_column: its name, if given.
    """

    table: pa.Table
    modality: str
    targets: Targets
    root: str
    notes: tuple[str, ...]
    data_version: str
    separator: str = "|"
    base: Path = field(default=Path(), repr=False, compare=False)
    group_column: str | None = None

    def save(self, path: Path) -> None:
        """Write one Parquet file, whole or not at all; the same manifest gives the same bytes."""
        facts = {
            "format_version": FORMAT_VERSION,
            "modality": self.modality,
            "task": self.targets.task,
            "classes": self.targets.classes,
            "root": self.root,
            "notes": self.notes,
            "data_version": self.data_version,
            "separator": self.separator,
        }
        if self.group_column is not None:
            facts["group_column"] = self.group_column
        table = self.table.replace_schema_metadata({_KEY: json.dumps(facts, sort_keys=True).encode()})
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            pq.write_table(table, unfinished, compression="zstd", row_group_size=65536)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, base: Path) -> Manifest:
        """The manifest of a file. Raises FormatError where it is missing, damaged or of a newer version."""
        try:
            table = pq.read_table(path)
            facts: dict[str, Any] = json.loads(table.schema.metadata[_KEY])
            if int(facts["format_version"]) > FORMAT_VERSION:
                raise FormatError(
                    f"the manifest {path} has format version {facts['format_version']}, this tl reads up to "
                    f"{FORMAT_VERSION}; update tl"
                )
            attributes = [name for name in table.column_names if name.startswith(ATTRIBUTE)]
            schema = pa.schema([*SCHEMA, *(pa.field(name, pa.string()) for name in attributes)])
            return cls(
                table=table.select(schema.names).cast(schema),
                modality=facts["modality"],
                targets=Targets(facts["task"], tuple(facts["classes"])),
                root=facts["root"],
                notes=tuple(facts["notes"]),
                data_version=facts["data_version"],
                separator=facts["separator"],
                base=base,
                group_column=facts.get("group_column"),
            )
        except FileNotFoundError as error:
            raise FormatError(f"no manifest at {path}; run the step `version` first") from error
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path} is no manifest or damaged; run the step `version` again") from error

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def rows(self, split: str | None = None) -> np.ndarray:
        """int64 [N]: indices of the good rows (of one split), in manifest order."""
        good = pc.is_null(self.table["reason"])
        if split is not None:
            if split not in SPLITS:
                raise ValueError(f"no split {split!r}; allowed: {', '.join(SPLITS)}")
            good = pc.and_(good, pc.equal(self.table["split"], split))
        return np.flatnonzero(good.to_numpy()).astype(np.int64)

    def sample(self, row: int) -> Sample:
        """One row as a Sample; its source is an absolute path or inline text."""
        return next(self.samples(np.array([row], np.int64)))

    def samples(self, rows: np.ndarray) -> Iterator[Sample]:
        """Rows as Samples, in the order given."""
        folder, columns = (self.base / self.root).absolute(), self.table.select(SCHEMA.names)
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            for row, facts in zip(part.tolist(), columns.take(pa.array(part)).to_pylist()):
                inline, source = facts.pop("inline"), facts.pop("source")
                yield Sample(row=row, source=source if inline else folder / source, **facts)

    def ids(self, rows: np.ndarray) -> list[str]:
        """What rows are called: a path in the data, or a table's name and line."""
        return self._column("id", rows)

    def digests(self, rows: np.ndarray) -> list[str]:
        """md5 hex of what the loader reads, by row."""
        return self._column("digest", rows)

    def groups(self, rows: np.ndarray) -> list[str] | None:
        """Values of the group column (a row without one is its own group); None where there is no such column."""
        if self.table["group"].null_count == len(self):
            return None
        return [group or id_ for group, id_ in zip(self._column("group", rows), self.ids(rows))]

    def alike(self, rows: np.ndarray) -> list[str] | None:
        """What rows that are not independent have in common: their group, or without a group column their content.

        None where each row stands for itself.
        """
        groups = self.groups(rows)
        if groups is not None:
            return groups
        digests = self.digests(rows)
        return digests if len(set(digests)) < len(digests) else None

    def attributes(self, rows: np.ndarray) -> dict[str, list[str | None]]:
        """Values to compare results by, a list for each column: the group column under its own name, then attributes.

        None where a row has no value. Numbers of many values are cut at the quartiles of all good rows, so that a row's
        value does not depend on which rows are asked for.
        """
        found: dict[str, list[str | None]] = {}
        if self.table["group"].null_count < len(self):
            found[self.group_column or "group"] = self.table["group"].take(pa.array(rows, pa.int64())).to_pylist()
        good = self.rows()
        for column in self.table.column_names[len(SCHEMA) :]:
            name = column.removeprefix(ATTRIBUTE)
            if name not in found:
                values = compared(self.table[column].to_pylist(), good)
                found[name] = [values[row] for row in rows.tolist()]
        return found

    def target_array(self, rows: np.ndarray) -> np.ndarray:
        """Targets of good rows: int64 [N] (multiclass), float32 [N, C] of 0 and 1 (multilabel), float32 [N].

        Raises ValueError where a row has no usable label.
        """
        encoded = self.table["label"].take(pa.array(rows, pa.int64())).combine_chunks().dictionary_encode()
        codes: np.ndarray = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        if np.any(codes < 0):
            raise ValueError(f"row {rows[int(np.argmin(codes))]} has no label; take rows from Manifest.rows()")
        targets: np.ndarray = encode_labels(encoded.dictionary.to_pylist(), self.targets, self.separator)[codes]
        return targets

    def counts(self) -> dict[str, dict[str, int]]:
        """Good rows by split and class (multi-label: rows that have the class; regression: `rows`)."""
        found = {}
        for split in SPLITS:
            rows = self.rows(split)
            if self.targets.task == "regression":
                found[split] = {"rows": len(rows)}
                continue
            targets = self.target_array(rows)
            n = len(self.targets.classes)
            totals = targets.sum(axis=0) if targets.ndim == 2 else np.bincount(targets, minlength=n)
            found[split] = {name: int(total) for name, total in zip(self.targets.classes, totals)}
        return found

    def quarantined(self) -> list[dict[str, str]]:
        """The unusable rows in order: row, id, split, label, reason, digest (each a string)."""
        bad = np.flatnonzero(pc.is_valid(self.table["reason"]).to_numpy())
        facts = self.table.select([c for c in QUARANTINE_COLUMNS if c != "row"]).take(pa.array(bad)).to_pylist()
        return [
            {"row": str(row), **{name: value or "" for name, value in values.items()}}
            for row, values in zip(bad.tolist(), facts)
        ]

    def write_quarantine(self, path: Path) -> None:
        """Write the unusable rows as CSV, with a header also where there are none."""
        text = io.StringIO()
        writer = csv.DictWriter(text, QUARANTINE_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.quarantined())
        write_text(path, text.getvalue())

    def require_usable(self, max_bad: float) -> None:
        """Raises UserError, listing the first unusable samples, where their share is above max_bad."""
        bad = self.quarantined()
        if len(bad) <= max_bad * len(self):
            return
        raise UserError(
            f"{len(bad)} of {len(self)} samples are unusable ({len(bad) / len(self):.1%}; data.max_bad allows "
            f"{max_bad:.1%}); repair or remove them, or raise data.max_bad:\n{list_bad(bad)}"
        )

    def _column(self, name: str, rows: np.ndarray) -> list[str]:
        values: list[str] = self.table[name].take(pa.array(rows, pa.int64())).to_pylist()
        return values


def list_bad(bad: list[dict[str, str]]) -> str:
    """The first unusable samples with their reasons, a line each, and how many more there are."""
    lines = [f"  {row['id']}: {row['reason']}" for row in bad[:LISTED]]
    if len(bad) > LISTED:
        lines.append(f"  ... and {len(bad) - LISTED} more")
    return "\n".join(lines)


def version_of(table: pa.Table) -> str:
    """md5 hex over what makes two versions of the data the same."""
    digest = hashlib.md5(usedforsecurity=False)
    for batch in table.select(_VERSIONED).to_batches(max_chunksize=4096):
        rows = list(zip(*(column.to_pylist() for column in batch.columns)))
        digest.update(json.dumps(rows)[1:-1].encode() + b", ")  # the same bytes however the table is chunked
    return digest.hexdigest()
