"""Samples named by tables: metadata.csv beside files, train.csv and test.csv, or one table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tl_core.config import RunConfig
from tl_core.errors import UserError
from tl_core.manifest.columns import Columns, choose_columns, require_columns
from tl_core.manifest.listing import ALLOWED_SPLITS, SPLIT_NAMES, Listing, Rows, clean
from tl_core.manifest.modality import loader_of_files, loader_of_texts, suffix_of
from tl_core.manifest.paths import DataRoot
from tl_core.manifest.tables import SUFFIXES, Block, Cell, Table, open_table, read_table
from tl_core.types import Loader

_SHARD = re.compile(r"-\d+-of-\d+$")  # train-00000-of-00004.parquet


def find_tables(folder: Path) -> list[tuple[Path, str | None]]:
    """The tables of a folder that name its samples, with the split that each one's name says.

    metadata.* before train.*, test.* and the like; none where the folder holds neither.
    Raises UserError where two tables claim one place.
    """
    tables = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    listings = [p for p in tables if p.stem.lower() == "metadata"]
    if len(listings) > 1:
        raise UserError(f"{folder} holds {' and '.join(p.name for p in listings)}; keep one of them")
    if listings:
        return [(listings[0], None)]
    by_split: dict[str, list[Path]] = {}
    for path in tables:
        split = SPLIT_NAMES.get(_SHARD.sub("", path.stem.lower()))
        if split:
            by_split.setdefault(split, []).append(path)
    for split, paths in by_split.items():
        if len({_SHARD.sub("", p.stem) + p.suffix for p in paths}) > 1:
            names = " and ".join(p.name for p in paths)
            raise UserError(f"{folder} holds several tables for the {split} split: {names}; keep one of them")
    return [(path, split) for split in ("train", "val", "test") for path in by_split.get(split, ())]


def list_tables(
    paths: Sequence[tuple[Path, str | None]],
    root: Path,
    config: RunConfig,
    loaders: Sequence[Loader],
    loader: Loader | None,
    trusted: Mapping[str, str],
) -> Listing:
    """The rows of one or more tables of the same columns, in table order.

    loader: the user's modality, None where it is to be guessed. Raises UserError with what is wrong.
    """
    tables = [(open_table(path), split) for path, split in paths]
    first = tables[0][0]
    columns = choose_columns(first, config.data, loaders, loader, split_named=tables[0][1] is not None)
    for table, _ in tables[1:]:
        require_columns(table, columns)
    notes = list(columns.notes)
    if loader is None:
        loader, note = _guess_loader([table for table, _ in tables], columns, loaders)
        notes.insert(0, note)
    elif columns.inline and not loader.inline:
        raise UserError(f"modality {loader.modality} reads files, and column '{columns.sample}' of {first.path} holds "
                        "no paths; set data.file to a column with paths")  # fmt: skip
    reader = _Reader(columns, config.data.separator, DataRoot(root, trusted))
    for table, split in tables:
        for block in read_table(table, columns.read):
            reader.read(table.path.name, split, block)
    notes += reader.finish(first.path)
    rows = reader.rows.table()
    return Listing(rows, root, loader, columns.inline, columns.label, reader.lists, tuple(notes))


def _guess_loader(tables: Sequence[Table], columns: Columns, loaders: Sequence[Loader]) -> tuple[Loader, str]:
    where = str(tables[0].path)
    if columns.inline:
        return loader_of_texts(loaders, where, columns.sample)
    cells = [cell for table in tables for cell in table.head.cells.get(columns.sample, ()) if isinstance(cell, str)]
    return loader_of_files(Counter(suffix_of(cell.strip()) for cell in cells), loaders, where)


class _Reader:
    """Turns blocks of tables into rows, and keeps what is odd about them for the end."""

    def __init__(self, columns: Columns, separator: str, root: DataRoot) -> None:
        self.columns = columns
        self.separator = separator
        self.root = root
        self.rows = Rows(columns.attributes)
        self.lists = False
        self._unknown: Counter[str] = Counter()
        self._without_split: int = 0
        self._split_rows: int = 0

    def read(self, table: str, split: str | None, block: Block) -> None:
        """Add a block of the table with this file name; split: what the file's name says, None where nothing."""
        count = len(block.numbers)
        reasons: list[str | None] = [block.faults.get(i) for i in range(count)]
        names = []
        for i, cell in enumerate(block.cells[self.columns.sample]):
            name, reason = self._source(cell)
            names.append(name)
            reasons[i] = reasons[i] or reason
        ids = [f"{table}:{number}" for number in block.numbers]
        if not self.columns.inline:
            ids = [clean(name) or row for name, row in zip(names, ids)]
        sources = [name if reason is None else "" for name, reason in zip(names, reasons)]
        labels = [self._label(cell) for cell in block.cells[self.columns.label]]
        groups = self._plain(self.columns.group, count, block)
        splits: list[str | None] = [split] * count
        if self.columns.split is not None:
            cells = self._plain(self.columns.split, count, block)
            splits = [self._split(cell, fault=i in block.faults) for i, cell in enumerate(cells)]
        attributes = [self._plain(name, count, block) for name in self.columns.attributes]
        self.rows.add(ids, sources, labels, splits, groups, reasons, attributes)

    def finish(self, where: Path) -> list[str]:
        """Notes on the whole. Raises UserError on split names that mean nothing."""
        if self._unknown:
            names = ", ".join(f"'{name}' ({count} rows)" for name, count in self._unknown.most_common(10))
            raise UserError(
                f"unknown split names in column '{self.columns.split}' of {where}: {names}; allowed: {ALLOWED_SPLITS}; "
                "rename them, or set data.split to another column"
            )
        if self._without_split and self._split_rows:
            return [f"{self._without_split} rows name no split in column '{self.columns.split}' and count as train"]
        return []

    def _source(self, cell: Cell) -> tuple[str, str | None]:
        text = cell if isinstance(cell, str) else "" if cell is None else self.separator.join(cell)
        return (text, None) if self.columns.inline else self.root.place(text)

    def _label(self, cell: Cell) -> str | None:
        if not isinstance(cell, list):
            return clean(cell)
        self.lists = True
        names = [name for item in cell if (name := clean(item))]
        if any(self.separator in name for name in names):
            name = next(name for name in names if self.separator in name)
            raise UserError(f"the label '{name}' in column '{self.columns.label}' holds data.separator "
                            f"'{self.separator}'; set data.separator to text that no label holds")  # fmt: skip
        return self.separator.join(names) or None

    def _plain(self, column: str | None, count: int, block: Block) -> list[str | None]:
        if column is None:
            return [None] * count
        return [clean(c if not isinstance(c, list) else self.separator.join(c)) for c in block.cells[column]]

    def _split(self, cell: str | None, fault: bool) -> str | None:
        if cell is None:
            self._without_split += not fault
            return None
        split = SPLIT_NAMES.get(cell.lower())
        if split is None:
            self._unknown[cell] += 1
        self._split_rows += 1
        return split
