"""Writers: rows into one space of the store, each writer in a shard of its own."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar, final

import numpy as np

from tl_core.errors import UserError
from tl_core.store.locks import LocksUnsupported, locked
from tl_core.store.rows import Encoded, RaggedRow, encode_fixed, encode_ragged
from tl_core.store.shards import MAX_ROW, Made, ShardWriter, keys_of
from tl_core.store.spaces import SpaceFacts, create_space, home

Rows = TypeVar("Rows")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PATIENCE = 60.0  # seconds that gc may keep a writer from making a shard; it needs milliseconds


class StoreFull(UserError):  # noqa: N818 - named for what it tells
    """The disk (or the quota) is full; every row stored before is whole. stored, missing: rows of this writer."""

    def __init__(self, root: Path, stored: int = 0, missing: int = 0) -> None:
        super().__init__(
            f"the disk of the feature store {root} is full: {stored} rows were stored, {missing} are missing; "
            "free some space (`tl cache gc` drops features that are no longer used) or set store.path to another "
            "disk, and run again: stored rows are kept"
        )
        self.root = root
        self.stored = stored


class RowWriter(ABC, Generic[Rows]):
    """Adds rows to one space, in a shard of its own that the first append() makes. stored: rows so far."""

    def __init__(self, root: Path, facts: SpaceFacts, made: Made) -> None:
        self._root = root
        self._facts = facts
        self._made = made
        self._shard: ShardWriter | None = None
        self.stored = 0
        with told(root), shared_store(root):
            create_space(root, facts)

    @abstractmethod
    def _encode(self, digests: Sequence[str], rows: Rows) -> Encoded:
        """The rows' bytes. Raises UserError where a row can't be stored, ValueError where it is no row."""

    @final
    def append(self, digests: Sequence[str], rows: Rows, flags: np.ndarray | None = None) -> None:
        """Store one row a digest; durable once it returns.

        flags: uint8 [N], zeros where None. Raises UserError naming the digests of rows that are not finite in
        the space's dtype (nothing is stored then), StoreFull where the disk is full.
        """
        keys = keys_of(digests)
        if not len(keys):
            return
        data, sizes = self._encode(digests, rows)
        if sizes.max() > MAX_ROW:
            raise ValueError(f"a row of {sizes.max()} bytes; rows have at most {MAX_ROW}")
        try:
            with told(self._root):
                self._shard = self._shard or self._new_shard()
                self._shard.append(keys, data, sizes, np.zeros(len(keys), np.uint8) if flags is None else flags)
        except StoreFull:
            self.close()
            raise StoreFull(self._root, self.stored, len(keys)) from None
        except BaseException:  # how the shard ends now is unknown: never write behind it
            self.close()
            raise
        self.stored += len(keys)

    @final
    def close(self) -> None:
        """Close the files; nothing is pending, append() leaves everything on the disk."""
        shard, self._shard = self._shard, None
        if shard is not None:
            shard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new_shard(self) -> ShardWriter:
        with shared_store(self._root):
            return ShardWriter(create_space(self._root, self._facts), self._made)  # gc may have removed the space


@final
class Writer(RowWriter[np.ndarray]):
    """Adds rows of one shape: append(digests, rows [N, *shape] in float16 or float32, flags)."""

    def _encode(self, digests: Sequence[str], rows: np.ndarray) -> Encoded:
        return encode_fixed(self._facts, digests, rows)


@final
class RaggedWriter(RowWriter[Sequence[RaggedRow]]):
    """Adds rows of named arrays: append(digests, one mapping name -> array a digest, flags)."""

    def _encode(self, digests: Sequence[str], rows: Sequence[RaggedRow]) -> Encoded:
        return encode_ragged(self._facts, digests, rows)


@final
class BytesWriter(RowWriter[Sequence[bytes]]):
    """Adds rows that are encoded already and known to be sound."""

    def _encode(self, digests: Sequence[str], rows: Sequence[bytes]) -> Encoded:
        return memoryview(b"".join(rows)), np.fromiter(map(len, rows), np.int64, len(rows))


@contextmanager
def shared_store(root: Path) -> Iterator[None]:
    """Keep gc from removing folders and unfinished shards; where there are no locks it does not run at all."""
    home(root).mkdir(parents=True, exist_ok=True)
    with suppress(LocksUnsupported):
        with locked(lock_path(root), exclusive=False, patience=_PATIENCE):
            yield
        return
    yield


def lock_path(root: Path) -> Path:
    """The file whose lock makers of shards share and gc has for itself while it unlinks."""
    return home(root) / ".lock"


@contextmanager
def told(root: Path) -> Iterator[None]:
    """Say in the user's words why the store can't be written."""
    try:
        yield
    except TimeoutError as error:
        raise UserError(f"{error}: is a `tl cache gc` suspended there? resume or end it, and run again") from error
    except OSError as error:
        if error.errno in FULL:
            raise StoreFull(root) from error
        raise UserError(
            f"can't write the feature store at {root}: {error.strerror}; set store.path to a folder that can be written"
        ) from error
