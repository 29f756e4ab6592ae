"""One shard in place of several: the rows of shards that nobody writes any more, without those that are to go."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_core.store.reading import chunks, read_bytes
from tl_core.store.shards import RECORD, Records, new_records
from tl_core.store.spaces import sync_folder

SUFFIXES = (".index", ".rows", ".json")  # the index first: without it the others are no shard
PART = ".part"
"""What an index is called until its rows are on the disk."""


@dataclass(frozen=True)
class Shard:
    """A finished shard. made: its header; bytes: of its files; rows: that it has; kept: records of those to keep."""

    name: str
    made: str
    bytes: int
    rows: int
    kept: Records

    @property
    def waste(self) -> int:
        """Bytes that a new shard would not have."""
        return self.bytes - self.kept_bytes - len(self.made.encode()) if len(self.kept) else self.bytes

    @property
    def kept_bytes(self) -> int:
        """Bytes that the kept rows take in a new shard, but for the header."""
        return int(self.kept["size"].sum()) + len(self.kept) * RECORD.itemsize


def replaced_bytes(shards: Sequence[Shard]) -> int:
    """Bytes that compact() of these shards frees."""
    kept = sum(shard.kept_bytes for shard in shards)
    return sum(shard.bytes for shard in shards) - (kept + len(shards[0].made.encode()) if kept else 0)


def compact(folder: Path, shards: Sequence[Shard]) -> None:
    """Put one shard with those of the kept rows that are whole in place of shards of one header.

    The shards are unlinked once the new one is on the disk; a kill leaves one or the other or both, which hold the
    same rows. Raises OSError, and leaves the shards as they were then.
    """
    if any(len(shard.kept) for shard in shards):
        # as old as the eldest: of two rows of one digest every reader takes the elder one
        name = f"{min(shard.name for shard in shards)[:16]}-{uuid.uuid4().hex[:16]}"
        try:
            _write(folder, name, shards)
        except BaseException:
            for suffix in (PART, *SUFFIXES):
                with suppress(OSError):
                    (folder / f"{name}{suffix}").unlink()
            raise
    for shard in shards:
        remove_shard(folder, shard.name)


def remove_shard(folder: Path, name: str) -> None:
    """Unlink a shard's files, those that are there."""
    for suffix in SUFFIXES:
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


def _write(folder: Path, name: str, shards: Sequence[Shard]) -> None:
    (folder / f"{name}.json").write_text(shards[0].made, encoding="utf-8")
    part = folder / f"{name}{PART}"
    written = 0
    with (folder / f"{name}.rows").open("xb") as rows, part.open("xb") as index:
        for shard in shards:
            for which in chunks(shard.kept["size"]):
                records = shard.kept[which]
                data, whole = read_bytes(folder, [shard.name], np.zeros(len(records), np.int64), records)
                records = records[whole]
                for row, sound in zip(data, whole):
                    rows.write(row if sound else b"")
                sizes = records["size"].astype(np.int64)
                index.write(new_records(records["key"], sizes, records["crc"], records["flags"], written).tobytes())
                written += int(sizes.sum())
        for stream in (rows, index):
            stream.flush()
            os.fsync(stream.fileno())
    part.rename(folder / f"{name}.index")
    sync_folder(folder)
