"""The feature store: rows by (sample digest, backbone fingerprint, cut, precision)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tl_core.store.claims import Claims
from tl_core.store.exchange import ExportResult, ImportResult, export_rows, import_rows
from tl_core.store.gc import GcResult, collect
from tl_core.store.index import SpaceIndex
from tl_core.store.reading import MissingRows, read_bytes, read_fixed
from tl_core.store.rows import decode_ragged
from tl_core.store.shards import RECORD, Made, Records, digest_of, keys_of, made_by, shard_sizes
from tl_core.store.spaces import DTYPES, Space, SpaceFacts, former_folders, home, open_space, space_folders
from tl_core.store.survey import SpaceInfo, space_faults, survey, unreadable
from tl_core.store.uses import mark_used
from tl_core.store.writing import RaggedWriter, Writer

TRUNCATED = 1
"""Bit 0 of a row's flags: the backbone could not see the whole sample."""


class FeatureStore:
    """Features under a folder; any number of processes may read and write it at once.

    An object belongs to one thread; make another for another thread.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: dict[Space, tuple[SpaceFacts, SpaceIndex]] = {}

    def present(self, space: Space, digests: Sequence[str]) -> np.ndarray:
        """Which rows the index names, bool [N]. A row damaged on the disk shows only when it is read."""
        return self._present(space, keys_of(digests))

    def flags(self, space: Space, digests: Sequence[str]) -> np.ndarray:
        """The rows' flags without the rows, uint8 [N]. Raises MissingRows."""
        return np.ascontiguousarray(self.records(space, digests)["flags"])

    def records(self, space: Space, digests: Sequence[str]) -> Records:
        """What the index says of the rows. Raises MissingRows."""
        found = self._find(space, keys_of(digests))
        if found is None:
            _refuse_any(digests)
            return np.zeros(0, RECORD)
        return _all_of(found, digests)[3]

    def read(self, space: Space, digests: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Rows [N, *shape] in the stored dtype and flags uint8 [N], in the order asked; of a space of fixed rows.

        Every row's checksum is verified. Raises MissingRows with the digests that are absent or damaged.
        """
        while found := self._find(space, keys_of(digests)):
            facts, index, at, records = _all_of(found, digests)
            if facts.ragged:
                raise ValueError(f"{space} holds ragged rows; read_ragged() reads them")
            rows, whole = read_fixed(facts, space.folder(self.root), index.names, index.shard[at], records)
            if whole.all():
                return rows, np.ascontiguousarray(records["flags"])
            self._forget(space, index, at[~whole])
        _refuse_any(digests)
        return np.zeros((0, 0), np.float32), np.zeros(0, np.uint8)

    def read_ragged(self, space: Space, digests: Sequence[str]) -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
        """Rows of named arrays and flags uint8 [N], in the order asked; of a space of ragged rows.

        Checked and refused as in read().
        """
        while found := self._find(space, keys_of(digests)):
            facts, index, at, records = _all_of(found, digests)
            if not facts.ragged:
                raise ValueError(f"{space} holds rows of shape {facts.shape}; read() reads them")
            blobs, whole = read_bytes(space.folder(self.root), index.names, index.shard[at], records)
            if whole.all():
                return [decode_ragged(blob) for blob in blobs], np.ascontiguousarray(records["flags"])
            self._forget(space, index, at[~whole])
        _refuse_any(digests)
        return [], np.zeros(0, np.uint8)

    def digests(self, space: Space) -> list[str]:
        """Whose rows the index of a space names, sorted."""
        found = self._find(space, keys_of(()))
        if found is None:
            return []
        index = found[1]
        return sorted(map(digest_of, index.records["key"][index.distinct()[0]].tolist()))

    def read_raw(self, space: Space, digests: Sequence[str]) -> tuple[list[bytes], Records, list[Made]]:
        """Rows as they lie on the disk, their records, and what computed each; checked and refused as in read()."""
        folder = space.folder(self.root)
        while found := self._find(space, keys_of(digests)):
            _, index, at, records = _all_of(found, digests)
            rows, whole = read_bytes(folder, index.names, index.shard[at], records)
            if whole.all():
                made = {number: made_by(folder, index.names[number]) for number in set(index.shard[at].tolist())}
                return rows, records, [made[number] for number in index.shard[at].tolist()]
            self._forget(space, index, at[~whole])
        _refuse_any(digests)
        return [], np.zeros(0, RECORD), []

    def writer(
        self,
        space: Space,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        engine: str,
        made: Mapping[str, str] | None = None,
    ) -> Writer:
        """A writer of rows of this shape and dtype (float16 or float32), to be used as a context manager.

        engine: what computes the rows, such as `torch-2.14.1-cpu`; made: versions of the libraries it takes, by name.
        Raises UserError where the store can't be written, ValueError where the space holds other rows.
        """
        if any(n <= 0 for n in shape):
            raise ValueError(f"rows of shape {shape}")
        return Writer(self.root, SpaceFacts(space, tuple(shape), _stored_dtype(dtype)), Made(engine, made or {}))

    def ragged_writer(
        self, space: Space, dtype: np.dtype[Any], engine: str, made: Mapping[str, str] | None = None
    ) -> RaggedWriter:
        """A writer of rows of named arrays of any shapes; floats in them are stored in the dtype. As writer()."""
        return RaggedWriter(self.root, SpaceFacts(space, (), _stored_dtype(dtype), True), Made(engine, made or {}))

    def claims(self, space: Space) -> Claims:
        """Claims on rows to compute, so that processes share the work; to be used as a context manager."""
        return Claims(space.folder(self.root), lambda keys: self._present(space, keys))

    def mark_used(self, space: Space, data_version: str, digests: Sequence[str]) -> None:
        """Remember for gc that a version of the data uses these rows, stored or not; fails for no disk's sake."""
        mark_used(self.root, space, data_version, digests)

    def info(self) -> list[SpaceInfo]:
        """What the store holds, by folder name, but for spaces that can't be read."""
        return survey(self.root)

    def unreadable(self) -> list[str]:
        """Why spaces can't be read, a sentence each: damaged, or of a newer tl. Nothing else touches them."""
        return unreadable(self.root)

    def exists(self) -> bool:
        """Whether the folder is a feature store, of this format or a former one."""
        return home(self.root).is_dir() or bool(former_folders(self.root))

    def verify(self, progress: Callable[[int], None] | None = None) -> list[str]:
        """Every fault that checksums show, in sentences; reads all rows. Torn tails of killed writers are none.

        progress: is told how many rows more have been checked.
        """
        tell = progress or (lambda rows: None)
        return [fault for folder in space_folders(self.root) for fault in space_faults(folder, tell)]

    def gc(self, keep_last: int | None = None, max_size: int | None = None, dry_run: bool = False) -> GcResult:
        """Free space, safely beside readers and writers: merge small shards, sweep what kills left, drop rows.

        keep_last: drop those that none of the last N versions of the data used (see mark_used); max_size: then
        remove whole spaces, least recently used first, until the store has at most so many bytes. Spaces of format 1
        go in any case. A space that somebody has claims in is left as it is. Raises UserError where the store can't
        be written or locked.
        """
        return collect(self.root, keep_last, max_size, dry_run)

    def export(self, path: Path, selections: Sequence[tuple[Space, Sequence[str] | None]]) -> ExportResult:
        """Write rows of some spaces to one file that import_() takes, on any machine; digests None: all that are whole.

        The file appears whole or not at all. Raises MissingRows where an asked row is absent or damaged, UserError
        where a space is not there or the file can't be written.
        """
        return export_rows(self, path, selections)

    def import_(self, path: Path) -> ImportResult:
        """Add the rows of an exported file that are not there yet.

        Rows that fail their checksum are left out and named. Raises UserError where the file is none, is cut off or
        does not fit this store, StoreFull; rows added before a fault shows are sound.
        """
        return import_rows(self, path)

    def _present(self, space: Space, keys: np.ndarray) -> np.ndarray:
        found = self._find(space, keys)
        return np.zeros(len(keys), bool) if found is None else found[2] >= 0

    def _find(self, space: Space, keys: np.ndarray) -> _Found | None:
        """The space and each key's position in its index, or -1; None where the space is not there."""
        folder = space.folder(self.root)
        try:
            if space not in self._open:
                facts = open_space(folder, space)
                if facts is None:
                    return None
                self._open[space] = (facts, SpaceIndex(folder, facts.row_bytes))
            facts, index = self._open[space]
            index.refresh()
        except FileNotFoundError:  # deleted since
            self._open.pop(space, None)
            return None
        return facts, index, index.find(keys)

    def _forget(self, space: Space, index: SpaceIndex, positions: np.ndarray) -> None:
        """Have the next look find another copy of rows that did not read well, or none."""
        try:
            there = shard_sizes(space.folder(self.root))
        except FileNotFoundError:
            return
        if all(index.names[number] in there for number in np.unique(index.shard[positions])):
            index.forget(positions)
        # else gc has put another shard in its place, which the next look takes in


_Found = tuple[SpaceFacts, SpaceIndex, np.ndarray]


def _all_of(found: _Found, digests: Sequence[str]) -> tuple[SpaceFacts, SpaceIndex, np.ndarray, Records]:
    """What was found, and the records at the positions. Raises MissingRows where one is missing."""
    facts, index, at = found
    missing = np.flatnonzero(at < 0)
    if missing.size:
        raise MissingRows([digests[int(i)] for i in missing])
    return facts, index, at, index.records[at]


def _refuse_any(digests: Sequence[str]) -> None:
    """Raise MissingRows where anything is asked of a space that is not there."""
    if len(digests):
        raise MissingRows(digests)


def _stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    stored = np.dtype(dtype).newbyteorder("<")
    if stored.str not in DTYPES:
        raise ValueError(f"rows of {stored}; the store takes float16 and float32")
    return stored
