"""The feature store: rows by (sample digest, backbone fingerprint, cut, precision)."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tl_core.errors import FormatError, UserError
from tl_core.store.index import SpaceIndex
from tl_core.store.shards import (
    ShardWriter,
    checksums,
    digest_of,
    engine_of,
    keys_of,
    map_rows,
    read_records,
    shard_sizes,
)
from tl_core.store.spaces import DTYPES, Space, SpaceFacts, create_space, open_space

TRUNCATED = 1
"""Bit 0 of a row's flags: the backbone could not see the whole sample."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CHUNK = 64 << 20  # bytes of rows that verify() holds at a time


class MissingRows(KeyError):  # noqa: N818 - named for what it carries
    """Rows that the store does not hold, or no longer whole. digests: whose."""

    def __init__(self, digests: Sequence[str]) -> None:
        super().__init__(f"{len(digests)} rows are not in the feature store, the first of {digests[0]}")
        self.digests = tuple(digests)


class StoreFull(UserError):  # noqa: N818
    """The disk (or the quota) is full; every row stored before is whole. stored, missing: rows of this writer."""

    def __init__(self, root: Path, stored: int = 0, missing: int = 0) -> None:
        super().__init__(
            f"the disk of the feature store {root} is full: {stored} rows were stored, {missing} are missing; "
            "free some space (`tl cache` shows what the store holds) or set store.path to another disk, and run "
            "again: stored rows are kept"
        )
        self.root = root
        self.stored = stored


@dataclass(frozen=True)
class SpaceInfo:
    """What one space holds. rows: distinct digests; bytes: on the disk; engines: that computed them, sorted."""

    space: Space
    rows: int
    bytes: int
    shape: tuple[int, ...]
    dtype: str
    engines: tuple[str, ...]


class FeatureStore:
    """Features under a folder; any number of processes may read and write it at once.

    An object belongs to one thread; make another for another thread.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open: dict[Space, tuple[SpaceFacts, SpaceIndex]] = {}

    def present(self, space: Space, digests: Sequence[str]) -> np.ndarray:
        """Which rows the index names, bool [N]. A row damaged on the disk shows only when it is read."""
        return self._find(space, digests)[1] >= 0

    def flags(self, space: Space, digests: Sequence[str]) -> np.ndarray:
        """The rows' flags without the rows, uint8 [N]. Raises MissingRows."""
        index, at = self._find(space, digests)
        _refuse_missing(digests, at)
        return index.flags[at] if index else np.zeros(0, np.uint8)

    def read(self, space: Space, digests: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Rows [N, *shape] in the stored dtype and flags uint8 [N], in the order asked.

        Every row's checksum is verified. Raises MissingRows with the digests that are absent or damaged.
        """
        while True:
            index, at = self._find(space, digests)
            _refuse_missing(digests, at)
            if index is None:
                return np.zeros((0, 0), np.float32), np.zeros(0, np.uint8)
            facts = self._open[space][0]
            rows = self._gather(facts, index, at)
            damaged = checksums(rows) != index.crc[at]
            if not damaged.any():
                return rows, index.flags[at]
            index.forget(np.unique(at[damaged]))

    def writer(self, space: Space, shape: tuple[int, ...], dtype: np.dtype[Any], engine: str) -> Writer:
        """A writer of rows of this shape and dtype (float16 or float32), to be used as a context manager.

        engine: what computes the rows, such as `torch-2.14.1-cpu`. Raises UserError where the store can't be
        written, ValueError where the space holds rows of another shape or dtype.
        """
        facts = SpaceFacts(space, tuple(shape), np.dtype(dtype).newbyteorder("<"))
        if facts.dtype.str not in DTYPES or facts.row_bytes <= 0:
            raise ValueError(f"rows of {facts.dtype} {facts.shape}; the store takes float16 and float32")
        return Writer(self.root, facts, engine)

    def info(self) -> list[SpaceInfo]:
        """What the store holds, by folder name. Raises FormatError where a space is damaged or newer."""
        infos = []
        for folder in self._folders():
            facts = open_space(folder)
            if facts is None:
                continue
            index = SpaceIndex(folder, facts.row_bytes)
            index.refresh()
            infos.append(
                SpaceInfo(
                    facts.space,
                    rows=len(np.unique(index.keys)),
                    bytes=sum(path.stat().st_size for path in folder.iterdir()),
                    shape=facts.shape,
                    dtype=facts.dtype.name,
                    engines=tuple(sorted({engine_of(folder, name) for name in index.names})),
                )
            )
        return infos

    def verify(self) -> list[str]:
        """Every fault that checksums show, in sentences; reads all rows. Torn tails of killed writers are none."""
        return [fault for folder in self._folders() for fault in _space_faults(folder)]

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.root.glob("*-*-*") if path.is_dir())

    def _find(self, space: Space, digests: Sequence[str]) -> tuple[SpaceIndex | None, np.ndarray]:
        """The space's index (None where the space is not there) and each digest's position in it, or -1."""
        keys = keys_of(digests)
        folder = space.folder(self.root)
        if space not in self._open:
            facts = open_space(folder, space)
            if facts is None:
                return None, np.full(len(keys), -1)
            self._open[space] = (facts, SpaceIndex(folder, facts.row_bytes))
        index = self._open[space][1]
        try:
            index.refresh()
        except FileNotFoundError:  # deleted since
            del self._open[space]
            return None, np.full(len(keys), -1)
        return index, index.find(keys)

    def _gather(self, facts: SpaceFacts, index: SpaceIndex, at: np.ndarray) -> np.ndarray:
        """The rows at index positions, unchecked; zeros where they have gone since (the checksum fails)."""
        rows = np.zeros((len(at), *facts.shape), facts.dtype)
        shard, number = index.shard[at], index.row[at]
        for which in np.unique(shard):
            wanted = np.flatnonzero(shard == which)
            wanted = wanted[np.argsort(number[wanted], kind="stable")]  # along the file
            try:
                mapped = map_rows(facts.space.folder(self.root), index.names[which], facts)
            except FileNotFoundError:
                continue
            wanted = wanted[number[wanted] < len(mapped)]
            rows[wanted] = mapped[number[wanted]]
        return rows


class Writer:
    """Adds rows to one space, in a shard of its own that the first append() makes."""

    def __init__(self, root: Path, facts: SpaceFacts, engine: str) -> None:
        self._root = root
        self._facts = facts
        self._engine = engine
        self._shard: ShardWriter | None = None
        self.stored = 0
        with _told(root):
            self._folder = create_space(root, facts)

    def append(self, digests: Sequence[str], rows: np.ndarray, flags: np.ndarray | None = None) -> None:
        """Store rows [N, *shape] (float16 or float32, cast to the space's dtype); durable once it returns.

        flags: uint8 [N], zeros where None. Raises UserError naming the digests of rows that are not finite in
        the space's dtype (nothing is stored then), StoreFull where the disk is full.
        """
        if rows.dtype not in (np.float16, np.float32) or rows.shape != (len(digests), *self._facts.shape):
            raise ValueError(f"rows {rows.dtype} {rows.shape} for {len(digests)} digests, expected {self._facts}")
        if not len(digests):
            return
        with np.errstate(over="ignore"):  # refused below
            stored = np.ascontiguousarray(rows, self._facts.dtype)
        finite = np.isfinite(stored).reshape(len(stored), -1).all(axis=1)
        if not finite.all():
            names = [digest for digest, ok in zip(digests, finite) if not ok]
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise UserError(
                f"features that are not finite in {self._facts.dtype}, of the samples with md5 "
                f"{', '.join(names[:5])}{more}; check these samples and the backbone's weights, or set "
                "extract.precision to float32"
            )
        flags = np.zeros(len(digests), np.uint8) if flags is None else flags
        try:
            with _told(self._root):
                self._shard = self._shard or ShardWriter(self._folder, self._engine)
                self._shard.append(keys_of(digests), stored, flags)
        except StoreFull:
            self.close()
            raise StoreFull(self._root, self.stored, len(digests)) from None
        except BaseException:  # how the shard ends now is unknown: never write behind it
            self.close()
            raise
        self.stored += len(digests)

    def close(self) -> None:
        """Close the files; nothing is pending, append() leaves everything on the disk."""
        shard, self._shard = self._shard, None
        if shard is not None:
            shard.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _told(root: Path) -> Iterator[None]:
    """Say in the user's words why the store can't be written."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull(root) from error
        raise UserError(
            f"can't write the feature store at {root}: {error.strerror}; set store.path to a folder that can be written"
        ) from error


def _refuse_missing(digests: Sequence[str], at: np.ndarray) -> None:
    missing = np.flatnonzero(at < 0)
    if missing.size:
        raise MissingRows([digests[int(i)] for i in missing])


def _space_faults(folder: Path) -> Iterator[str]:
    """The faults of one space's folder; holds a bounded number of rows at a time."""
    try:
        facts = open_space(folder)
    except FormatError as error:
        yield str(error)
        return
    sizes = shard_sizes(folder)
    if facts is None:
        if sizes:
            yield f"{folder} has lost its space.json; delete the folder and its features are computed again"
        return
    step = max(1, _CHUNK // facts.row_bytes)
    for name, size in sizes.items():
        records, damaged = read_records(folder, name, 0, size, facts.row_bytes)
        if len(damaged):
            yield f"{folder / name}.index: {len(damaged)} damaged records; those rows are computed again when needed"
        rows = map_rows(folder, name, facts) if len(records) else np.zeros((0, *facts.shape), facts.dtype)
        for start in range(0, len(records), step):
            part = records[start : start + step]
            wrong = checksums(rows[part["row"].astype(np.int64)]) != part["crc"]
            for record in part[wrong]:
                yield (
                    f"{folder / name}.rows: row {record['row']} of the sample with md5 {digest_of(record['key'])} is "
                    "damaged; it is computed again when needed"
                )
