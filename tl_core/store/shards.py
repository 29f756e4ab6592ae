"""Shards: the append-only files in which one writer process leaves its rows.

A shard is three files of one name: `.json` (the engine), `.rows` (raw rows, one after the other) and `.index`
(one fixed-size record a row). A record is written only after its row is on the disk and carries checksums of the
row and of itself, so whatever a kill, a full disk or a lost power supply leaves behind, a record that reads
well has a whole row.
"""

from __future__ import annotations

import json
import os
import time
import uuid
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tl_core.store.spaces import SpaceFacts, sync_folder

RECORD = np.dtype(
    [
        ("key", "S16"),  # the sample's md5; S16 sorts and compares all 16 bytes
        ("row", "<u8"),  # number of the row in the shard
        ("crc", "<u4"),  # zlib.crc32 of the row's bytes
        ("flags", "u1"),
        ("spare", "V3"),
        ("check", "<u4"),  # zlib.crc32 of the bytes before it
    ]
)
_CHECKED = RECORD.itemsize - 4

Records = np.ndarray[Any, np.dtype[Any]]


def keys_of(digests: Sequence[str]) -> np.ndarray:
    """Digests (md5 hex) as an S16 array. Raises ValueError naming the first that is none."""
    for digest in digests:
        if len(digest) != 32:
            raise ValueError(f"{digest!r} is no md5 digest (32 hex digits)")
    return np.frombuffer(bytes.fromhex("".join(digests)), dtype="S16")


def digest_of(key: bytes) -> str:
    """The md5 hex of a key; numpy strips the zero bytes at an S16's end."""
    return key.ljust(16, b"\0").hex()


def checksums(rows: np.ndarray) -> np.ndarray:
    """crc32 of each row's bytes, uint32 [N]. rows: contiguous."""
    return np.fromiter((zlib.crc32(row.data) for row in rows), np.uint32, len(rows))


class ShardWriter:
    """A new shard of a space's folder; what append() has returned from is durable and readable by everyone."""

    def __init__(self, folder: Path, engine: str) -> None:
        # a name that sorts by age: of two rows of one digest every reader takes the elder one
        name = f"{time.time_ns():016x}-{uuid.uuid4().hex[:16]}"
        self._count = 0
        (folder / f"{name}.json").write_text(json.dumps({"engine": engine}), encoding="utf-8")
        self._rows = (folder / f"{name}.rows").open("xb", buffering=0)
        try:
            self._index = (folder / f"{name}.index").open("xb", buffering=0)
        except BaseException:
            self._rows.close()
            raise
        sync_folder(folder)

    def append(self, keys: np.ndarray, rows: np.ndarray, flags: np.ndarray) -> None:
        """Add rows [N, ...] (contiguous) under keys S16 [N]. After an OSError the shard must not be used again."""
        records = np.zeros(len(rows), RECORD)
        records["key"] = keys
        records["row"] = np.arange(self._count, self._count + len(rows))
        records["crc"] = checksums(rows)
        records["flags"] = flags
        records["check"] = _record_checks(records)
        start = os.fstat(self._rows.fileno()).st_size
        try:
            _write(self._rows.fileno(), rows.reshape(-1).view(np.uint8).data)
        except OSError:
            with suppress(OSError):  # no record points there yet: give the space back
                os.truncate(self._rows.fileno(), start)
            raise
        _write(self._index.fileno(), memoryview(records.tobytes()))
        self._count += len(rows)

    def close(self) -> None:
        """Close the files."""
        self._rows.close()
        self._index.close()


def shard_sizes(folder: Path) -> dict[str, int]:
    """Whole index records by shard name, eldest shard first."""
    with os.scandir(folder) as entries:
        sizes = {e.name[:-6]: e.stat().st_size // RECORD.itemsize for e in entries if e.name.endswith(".index")}
    return dict(sorted(sizes.items()))


def read_records(folder: Path, name: str, start: int, stop: int, row_bytes: int) -> tuple[Records, Records]:
    """(readable, damaged) records start..stop-1 of a shard; damaged ones fail their check or lack their row."""
    with (folder / f"{name}.index").open("rb") as stream:
        stream.seek(start * RECORD.itemsize)
        data = stream.read((stop - start) * RECORD.itemsize)
    records = np.frombuffer(data, RECORD, len(data) // RECORD.itemsize)
    try:
        rows = (folder / f"{name}.rows").stat().st_size // row_bytes  # after the index: rows are written first
    except FileNotFoundError:
        rows = 0
    good = (_record_checks(records) == records["check"]) & (records["row"] < rows)
    return records[good], records[~good]


def map_rows(folder: Path, name: str, facts: SpaceFacts) -> np.ndarray:
    """A shard's whole rows [N, *shape] by memory map."""
    path = folder / f"{name}.rows"
    count = path.stat().st_size // facts.row_bytes
    if not count:  # an empty file can't be mapped
        return np.zeros((0, *facts.shape), facts.dtype)
    return np.memmap(path, dtype=facts.dtype, mode="r", shape=(count, *facts.shape))


def engine_of(folder: Path, name: str) -> str:
    """The engine that computed a shard's rows; `unknown` where its header is lost."""
    try:
        return str(json.loads((folder / f"{name}.json").read_bytes())["engine"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def _record_checks(records: Records) -> np.ndarray:
    view = memoryview(records.tobytes())
    starts = range(0, len(view), RECORD.itemsize)
    return np.fromiter((zlib.crc32(view[at : at + _CHECKED]) for at in starts), np.uint32, len(records))


def _write(handle: int, data: memoryview) -> None:
    """Write all of the bytes and wait until they are on the disk."""
    while data:
        data = data[os.write(handle, data) :]
    os.fsync(handle)
