"""Samples without labels as a listing: a folder of files, a folder of tables, a table or one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tl_core.errors import UserError, did_you_mean
from tl_core.manifest.folders import DROPPINGS
from tl_core.manifest.listing import Listing, Rows
from tl_core.manifest.modality import kinds
from tl_core.manifest.paths import DataRoot
from tl_core.manifest.tables import SUFFIXES, open_table, read_table
from tl_core.types import Loader
from tl_flows.prediction_io import sample_column

BY_FOLDER = "folder"  # as --group: files of one folder belong together

_Row = tuple[str, str, str | None, str | None]  # id, source, group, reason


def list_incoming(
    data: Path, loader: Loader, loaders: Sequence[Loader], column: str | None, group: str | None, *, required: bool
) -> Listing:
    """The samples in a folder or table as tl predict finds them, with their groups; nothing is opened.

    column: of a table that holds files or texts; group: a table's column whose values belong together, or `folder`.
    required: the user has named the group: it must be there. Raises UserError where the data are not there, hold
    nothing of the modality, or lack a column that is named.
    """
    if not data.exists():
        near = did_you_mean(data.name, [path.name for path in data.absolute().parent.glob("*")]) or ";"
        raise UserError(f"no such folder or table: {data}{near} name the new samples")
    readable = kinds(loader, loaders)
    if data.is_dir():
        return _folder(data, loader, readable, column, group, required)
    if data.suffix.lower() in SUFFIXES and data.suffix.lower() not in readable:
        return _tables([data], data.parent, loader, column, group, required)
    return _listing([(data.name, data.name, None, None)], data.parent, loader, inline=False)


def _folder(
    folder: Path, loader: Loader, readable: frozenset[str], column: str | None, group: str | None, required: bool
) -> Listing:
    files = sorted(path for path in folder.rglob("*") if _counts(path, folder))
    if not any(path.suffix.lower() in readable for path in files):
        tables = [path for path in files if path.suffix.lower() in SUFFIXES]
        if not tables:
            raise UserError(
                f"no {loader.modality} files in {folder}; read are {', '.join(sorted(readable))}, or tables "
                f"({', '.join(SUFFIXES)}) that name them"
            )
        return _tables(tables, folder, loader, column, group, required)
    by_folder = group == BY_FOLDER
    if required and not by_folder:
        raise UserError(
            f"files in a folder have no column '{group}'; list them in a table with that column, or let files of one "
            f"folder belong together: --group {BY_FOLDER}"
        )
    names = [path.relative_to(folder).as_posix() for path in files if path.suffix.lower() in readable]
    rows = [(name, name, (name.rpartition("/")[0] or ".") if by_folder else None, None) for name in names]
    others = len(files) - len(names)
    note = f"left out of {folder}: {others:,} file{'s' if others > 1 else ''} of other kinds than {loader.modality}"
    return _listing(rows, folder, loader, inline=False, notes=(note,) if others else ())


def _counts(path: Path, folder: Path) -> bool:
    """Whether a path below the folder is a file that somebody put there, not one of the system's own."""
    parts = path.relative_to(folder).parts
    return not any(part.startswith(".") or part.lower() in DROPPINGS for part in parts) and not path.is_dir()


def _tables(
    paths: Sequence[Path], root: Path, loader: Loader, column: str | None, group: str | None, required: bool
) -> Listing:
    rows: list[_Row] = []
    kinds_found = set()
    for path in paths:
        table = open_table(path)
        chosen, inline = sample_column(table, loader, column)
        kinds_found.add(inline)
        if required and group not in table.columns:
            raise UserError(
                f"no column '{group}'{did_you_mean(str(group), table.columns)} in {path}; --group takes one of: "
                f"{', '.join(table.columns)}"
            )
        wanted = group if group in table.columns else None
        rows += _table_rows(path, root, chosen, wanted, inline)
    if len(kinds_found) > 1:
        raise UserError(f"some tables in {root} hold texts and some name files; compare them one by one")
    return _listing(rows, root, loader, inline=kinds_found == {True})


def _table_rows(path: Path, root: Path, column: str, group: str | None, inline: bool) -> Iterator[_Row]:
    place = DataRoot(path.parent).place
    below = path.parent.relative_to(root).as_posix()
    for block in read_table(open_table(path), list(dict.fromkeys([column, *([group] if group else [])]))):
        for position, (number, cell) in enumerate(zip(block.numbers, block.cells[column])):
            name = f"{path.relative_to(root).as_posix()}:{number}"
            belongs = block.cells[group][position] if group else None
            named = str(belongs) if belongs is not None else None
            if fault := block.faults.get(position):
                yield name, "", named, fault
            elif not isinstance(cell, str):
                yield name, "", named, f"no value in column '{column}'"
            elif inline:
                yield name, cell, named, None
            else:
                source, fault = place(cell)
                yield name, source if below == "." else f"{below}/{source}", named, fault


def _listing(rows: Sequence[_Row], root: Path, loader: Loader, *, inline: bool, notes: tuple[str, ...] = ()) -> Listing:
    found = Rows()
    nothing = [None] * len(rows)
    ids, sources, groups, reasons = (list(column) for column in zip(*rows)) if rows else ([], [], [], [])
    found.add(ids, sources, nothing, nothing, groups, reasons)
    return Listing(found.table(), root, loader, inline, notes=notes)
