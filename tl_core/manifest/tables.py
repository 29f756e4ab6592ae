"""Reading tables (CSV, TSV, JSONL, Parquet) block by block, so that memory does not grow with their length."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from tl_core.errors import UserError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
BLOCK_ROWS = 4096
HEAD_ROWS = 1000  # rows that columns are guessed from
MAX_CELL = 16 * 2**20  # a longer cell is a quote that is never closed

Cell = str | list[str] | None
Record = tuple[int, dict[str, Any], str | None]  # number, values by column, why the row can't be read

_BROKEN = re.compile("[\ud800-\udfff]")  # what undecodable bytes become under surrogateescape


@dataclass(frozen=True)
class Block:
    """Some rows of a table.

    numbers: the rows as an editor or a spreadsheet counts them (a header is row 1); cells: by column;
    faults: position in the block -> why the row can't be read (its cells are None).
    """

    numbers: list[int]
    cells: dict[str, list[Cell]]
    faults: dict[int, str]


@dataclass(frozen=True)
class Table:
    """A table file: its columns, and the first rows, from which columns are guessed."""

    path: Path
    columns: tuple[str, ...]
    head: Block


def open_table(path: Path) -> Table:
    """The table's columns and its head. Raises UserError where it can't be read or holds no rows."""
    columns: dict[str, None] = dict.fromkeys(_header(path))
    head = list(islice(_records(path, None), HEAD_ROWS))
    for _, values, _ in head:
        columns |= dict.fromkeys(values)
    if not head:
        raise UserError(f"the table {path} is empty: expected rows with samples")
    return Table(path, tuple(columns), _block(path, head, list(columns)))


def read_table(table: Table, columns: Sequence[str]) -> Iterator[Block]:
    """The table's rows in order, in blocks of at most BLOCK_ROWS, with these columns only."""
    records = _records(table.path, columns)
    while block := list(islice(records, BLOCK_ROWS)):
        yield _block(table.path, block, columns)


def _block(path: Path, records: Sequence[Record], columns: Sequence[str]) -> Block:
    cells: dict[str, list[Cell]] = {column: [] for column in columns}
    faults: dict[int, str] = {}
    for position, (number, values, fault) in enumerate(records):
        row = [_cell(values.get(column), path, number, column) for column in columns]
        if fault is None and any(map(_broken, row)):
            fault = "row is not valid UTF-8"
        if fault is not None:
            faults[position] = fault
            row = [None] * len(row)
        for column, cell in zip(columns, row):
            cells[column].append(cell)
    return Block([number for number, _, _ in records], cells, faults)


def _cell(value: Any, path: Path, number: int, column: str) -> Cell:
    """A value as text, or as a list of texts; None where it is missing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if value != value:
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, (list, tuple)):
        return [str(_cell(item, path, number, column)) for item in value if item is not None]
    if isinstance(value, bytes) or (isinstance(value, dict) and isinstance(value.get("bytes"), bytes)):
        raise UserError(
            f"column '{column}' of {path} holds embedded files; write them to a folder and give a column with paths"
        )
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _broken(cell: Cell) -> bool:
    if isinstance(cell, list):
        return any(map(_broken, cell))
    return cell is not None and not cell.isascii() and _BROKEN.search(cell) is not None


def _header(path: Path) -> list[str]:
    """Column names that stand outside the rows (none for JSONL)."""
    if path.suffix.lower() == ".parquet":
        return [str(name) for name in _parquet(path).schema_arrow.names]
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return []
    with _open_text(path) as stream:
        _, header = _csv_reader(stream, path)
    if len(set(filter(None, header))) < len(list(filter(None, header))):
        twins = sorted({name for name in header if name and header.count(name) > 1})
        raise UserError(f"the table {path} has columns of the same name: {', '.join(twins)}; rename one of each")
    return header


def _records(path: Path, columns: Sequence[str] | None) -> Iterator[Record]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_records(path, columns)
    if suffix in (".jsonl", ".ndjson"):
        return _jsonl_records(path)
    return _csv_records(path)


def _open_text(path: Path) -> TextIO:
    try:
        with path.open("rb") as stream:
            start = stream.read(4)
        wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return path.open(encoding="utf-16" if wide else "utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise UserError(f"unreadable table {path}: {error.strerror}") from error


def _csv_reader(stream: TextIO, path: Path) -> tuple[Any, list[str]]:
    """A reader that stands after the header, and the header.

    A header of one column that holds semicolons or tabs tells that these separate the cells.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    start = stream.tell()
    first = stream.readline()
    if delimiter not in first:
        delimiter = max(";\t", key=first.count) if any(c in first for c in ";\t") else delimiter
    stream.seek(start)
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise UserError(f"unreadable table {path}: its header is malformed ({error})") from error
    if not any(header):
        raise UserError(f"the table {path} is empty: expected a header and rows")
    if any(_broken(name) for name in header):
        raise UserError(f"unreadable table {path}: its header is not valid UTF-8; save it as UTF-8")
    return reader, header


def _csv_records(path: Path) -> Iterator[Record]:
    limit = csv.field_size_limit(MAX_CELL)  # of the whole process: put back below
    try:
        with _open_text(path) as stream:
            reader, header = _csv_reader(stream, path)
            number = 1
            while True:
                number += 1
                line = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    if "unexpected end" in str(error) or "field limit" in str(error):
                        raise UserError(
                            f"unreadable table {path}: a quote that opens in line {line} is never closed; "
                            'close it, or write "" for a quote inside a cell'
                        ) from error
                    yield number, {}, f'malformed row: {error}; a quote inside a cell is written ""'
                    continue
                if not cells:
                    continue
                if len(cells) < len(header) or any(cells[len(header) :]):
                    yield number, {}, f"malformed row: {len(cells)} cells, the header has {len(header)}"
                    continue
                yield number, dict(zip(header, cells)), None
    finally:
        csv.field_size_limit(limit)


def _jsonl_records(path: Path) -> Iterator[Record]:
    with _open_text(path) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                yield number, {}, "malformed row: not JSON"
                continue
            if isinstance(value, dict):
                yield number, value, None
            else:
                yield number, {}, f"malformed row: expected a JSON object, found {type(value).__name__}"


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"unreadable table {path}: {str(error).splitlines()[0]}") from error


def _parquet_records(path: Path, columns: Sequence[str] | None) -> Iterator[Record]:
    import pyarrow as pa

    with _parquet(path) as file:
        if columns is None:  # the head: embedded files would cost more than they tell
            columns = [
                field.name
                for field in file.schema_arrow
                if not pa.types.is_struct(field.type) and not pa.types.is_large_binary(field.type)
                and not pa.types.is_binary(field.type)
            ]  # fmt: skip
        number = 0
        try:
            for batch in file.iter_batches(batch_size=BLOCK_ROWS, columns=list(columns)):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values, None
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"unreadable table {path}: {str(error).splitlines()[0]}") from error
