"""What a store holds, and whether all of it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_core.errors import FormatError
from tl_core.store.index import SpaceIndex
from tl_core.store.reading import chunks, read_bytes
from tl_core.store.rows import sound_rows
from tl_core.store.shards import digest_of, made_by, read_records, shard_sizes
from tl_core.store.spaces import (
    FORMAT_VERSION,
    Space,
    SpaceFacts,
    facts_from,
    former_folders,
    open_space,
    space_folders,
)
from tl_core.store.uses import version_uses


@dataclass(frozen=True)
class SpaceInfo:
    """What one space holds.

    rows: distinct digests; bytes: on the disk; shape: of a row, () where they are ragged; engines: that computed
    them, sorted; made: the library versions that they were computed with, such as `timm 1.0.9`, sorted; last_used:
    seconds since 1970, None where no use was marked; format_version: of the tl that wrote it (1 is no longer read).
    """

    space: Space
    rows: int
    bytes: int
    shape: tuple[int, ...]
    dtype: str
    engines: tuple[str, ...]
    ragged: bool = False
    made: tuple[str, ...] = ()
    last_used: float | None = None
    format_version: int = FORMAT_VERSION


def survey(root: Path) -> list[SpaceInfo]:
    """All spaces that can be read, by folder name."""
    last: dict[str, float] = {}
    for version in version_uses(root):
        for name in version.spaces:
            last[name] = max(version.last, last.get(name, 0.0))
    infos = [_former(folder) for folder in former_folders(root)]
    for folder in space_folders(root):
        with suppress(FileNotFoundError, FormatError):  # deleted meanwhile; unreadable() tells
            infos.append(_space_info(folder, last.get(folder.name)))
    return [info for info in infos if info is not None]


def unreadable(root: Path) -> list[str]:
    """Why spaces can't be read, those that can't: damaged, or of a newer tl."""
    why = []
    for folder in space_folders(root):
        try:
            open_space(folder)
        except FormatError as error:
            why.append(str(error))
    return why


def former_rows(folder: Path) -> int:
    """Rows of a space of format 1, whose records had 40 bytes too."""
    return sum(folder_size(path) // 40 for path in folder.glob("*.index"))


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder and below it; of a single file where it is one."""
    paths = folder.rglob("*") if folder.is_dir() else [folder]
    size = 0
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.lstat()
            size += 0 if path.is_dir() else status.st_size
    return size


def space_faults(folder: Path, progress: Callable[[int], None]) -> Iterator[str]:
    """The faults of one space's folder, in sentences; holds a bounded number of rows at a time."""
    try:
        facts = open_space(folder)
        sizes = shard_sizes(folder)
    except FormatError as error:
        yield str(error)
        return
    except FileNotFoundError:  # deleted meanwhile
        return
    if facts is None:
        if sizes:
            yield f"{folder} has lost its space.json; delete the folder and its features are computed again"
        return
    for name, size in sizes.items():
        with suppress(FileNotFoundError):  # gc has put another in its place
            yield from _shard_faults(facts, folder, name, size, progress)


def _space_info(folder: Path, last_used: float | None) -> SpaceInfo | None:
    facts = open_space(folder)
    if facts is None:
        return None
    index = SpaceIndex(folder, facts.row_bytes)
    index.refresh()
    made = [made_by(folder, name) for name in index.names]
    return SpaceInfo(
        facts.space,
        rows=len(index.distinct()[0]),
        bytes=folder_size(folder),
        shape=facts.shape,
        dtype=facts.dtype.name,
        engines=tuple(sorted({one.engine for one in made})),
        ragged=facts.ragged,
        made=tuple(sorted({f"{name} {version}" for one in made for name, version in one.libraries.items()})),
        last_used=last_used,
    )


def _former(folder: Path) -> SpaceInfo | None:
    try:
        value = json.loads((folder / "space.json").read_bytes())
        facts, version = facts_from(value), int(value["format_version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    size = folder_size(folder)
    return SpaceInfo(facts.space, former_rows(folder), size, facts.shape, facts.dtype.name, (), format_version=version)


def _shard_faults(
    facts: SpaceFacts, folder: Path, name: str, size: int, progress: Callable[[int], None]
) -> Iterator[str]:
    records, damaged = read_records(folder, name, 0, size, facts.row_bytes)
    if len(damaged):
        yield f"{folder / name}.index: {len(damaged)} damaged records; those rows are computed again when needed"
    for part in chunks(records["size"]):
        asked = records[part]
        rows, whole = read_bytes(folder, [name], np.zeros(len(asked), np.int64), asked)
        if not whole.all() and not (folder / f"{name}.index").exists():
            raise FileNotFoundError(name)
        if facts.ragged:
            whole &= sound_rows(facts, rows)
        for record in asked[~whole]:
            yield (
                f"{folder / name}.rows: the row at byte {record['offset']}, of the sample with md5 "
                f"{digest_of(record['key'])}, is damaged; it is computed again when needed"
            )
        progress(len(asked))
