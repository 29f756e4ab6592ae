"""Shards: the append-only files in which one writer process leaves its rows.

A shard is three files of one name: `.json` (the engine and the library versions), `.rows` (the rows' bytes, one
after the other) and `.index` (one fixed-size record a row). A record is written only after its row is on the disk
and carries checksums of the row and of itself, so whatever a kill, a full disk or a lost power supply leaves behind,
a record that reads well has a whole row. A shard's writer holds a shared lock of the index as long as it lives.
"""

from __future__ import annotations

import json
import os
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tl_core.store.locks import LocksUnsupported, try_lock
from tl_core.store.spaces import sync_folder

RECORD = np.dtype(
    [
        ("key", "S16"),  # the sample's md5; S16 compares all 16 bytes
        ("offset", "<u8"),  # of the row in the shard, in bytes
        ("size", "<u4"),  # of the row, in bytes
        ("crc", "<u4"),  # zlib.crc32 of the row's bytes
        ("flags", "u1"),
        ("spare", "V3"),
        ("check", "<u4"),  # of the bytes before it: record_checks()
    ]
)
MAX_ROW = 2**32 - 1
"""Bytes that a row may have."""

# Multilinear hashing (Lemire & Kaser 2014, arXiv:1202.4961) of the record's nine 32-bit words: an offset, so that zeros
# do not pass, and a factor a word; the numbers are the first round constants of SHA-512.
_FACTORS = np.array(
    [
        0x428A2F98D728AE22, 0x7137449123EF65CD, 0xB5C0FBCFEC4D3B2F, 0xE9B5DBA58189DBBC, 0x3956C25BF348B538,
        0x59F111F1B605D019, 0x923F82A4AF194F9B, 0xAB1C5ED5DA6D8118, 0xD807AA98A3030242, 0x12835B0145706FBE,
    ],
    dtype=np.uint64,
)  # fmt: skip

Records = np.ndarray[Any, np.dtype[Any]]


def keys_of(digests: Sequence[str]) -> np.ndarray:
    """Digests (md5 hex) as an S16 array. Raises ValueError naming the first that is none."""
    if not set(map(len, digests)) <= {32}:
        wrong = next(digest for digest in digests if len(digest) != 32)
        raise ValueError(f"{wrong!r} is no md5 digest (32 hex digits)")
    keys = bytes.fromhex("".join(digests))
    if len(keys) != 16 * len(digests):  # fromhex() skips blanks
        raise ValueError("md5 digests (32 hex digits) with blanks in them")
    return np.frombuffer(keys, dtype="S16")


def digest_of(key: bytes) -> str:
    """The md5 hex of a key; numpy strips the zero bytes at an S16's end."""
    return key.ljust(16, b"\0").hex()


def checksums(data: memoryview, sizes: np.ndarray) -> np.ndarray:
    """crc32 of each row, uint32 [N]. data: the rows' bytes, one after the other; sizes: int64 [N]."""
    n = len(sizes)
    rows: Iterable[Any]
    if n and len(data) == n * sizes[0] and (sizes == sizes[0]).all():
        rows = np.frombuffer(data, np.uint8).reshape(n, -1)  # quicker than slices
    else:
        ends = np.cumsum(sizes, dtype=np.int64).tolist()
        rows = (data[a:b] for a, b in zip([0, *ends], ends))
    return np.fromiter(map(zlib.crc32, rows), np.uint32, n)


def record_checks(records: Records) -> np.ndarray:
    """What the records' `check` must be, uint32 [N]."""
    words = np.ascontiguousarray(records).view("<u4").reshape(-1, RECORD.itemsize // 4)
    total = np.full(len(records), _FACTORS[0])
    for word, factor in enumerate(_FACTORS[1:]):
        total += words[:, word].astype(np.uint64) * factor
    return (total >> np.uint64(32)).astype(np.uint32)


@dataclass(frozen=True)
class Made:
    """What computed a shard's rows. engine: such as `torch-2.14.1-cpu`; libraries: versions by name."""

    engine: str
    libraries: Mapping[str, str] = field(default_factory=dict)

    @property
    def json(self) -> str:
        """As a shard's header holds it; equal where the rows were made alike."""
        return json.dumps({"engine": self.engine, "made": dict(self.libraries)}, sort_keys=True)

    @staticmethod
    def parse(text: str | bytes) -> Made:
        """From a header; engine `unknown` where it is damaged."""
        try:
            value = json.loads(text)
            return Made(str(value["engine"]), {str(k): str(v) for k, v in value["made"].items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            return Made("unknown")


class ShardWriter:
    """A new shard of a space's folder; what append() has returned from is durable and readable by everyone."""

    def __init__(self, folder: Path, made: Made) -> None:
        # a name that sorts by age: of two rows of one digest every reader takes the elder one
        name = f"{time.time_ns():016x}-{uuid.uuid4().hex[:16]}"
        self._size = 0
        (folder / f"{name}.json").write_text(made.json, encoding="utf-8")
        self._rows = (folder / f"{name}.rows").open("xb", buffering=0)
        try:
            self._index = (folder / f"{name}.index").open("xb", buffering=0)
            with suppress(LocksUnsupported):  # gc does not run there
                try_lock(self._index.fileno(), exclusive=False)
        except BaseException:
            self._rows.close()
            raise
        sync_folder(folder)

    def append(self, keys: np.ndarray, data: memoryview, sizes: np.ndarray, flags: np.ndarray) -> None:
        """Add rows under keys S16 [N]. After an OSError the shard must not be used again.

        data: the rows' bytes, one after the other; sizes: int64 [N]; flags: uint8 [N].
        """
        records = new_records(keys, sizes, checksums(data, sizes), flags, self._size)
        try:
            write_all(self._rows.fileno(), data)
        except OSError:
            with suppress(OSError):  # no record points there yet: give the space back
                os.truncate(self._rows.fileno(), self._size)
            raise
        write_all(self._index.fileno(), memoryview(records.tobytes()))
        self._size += len(data)

    def close(self) -> None:
        """Close the files."""
        self._rows.close()
        self._index.close()


def new_records(keys: np.ndarray, sizes: np.ndarray, crcs: np.ndarray, flags: np.ndarray, start: int) -> Records:
    """Records of rows that lie one after the other from the offset `start` on."""
    records = np.zeros(len(keys), RECORD)
    records["key"] = keys
    records["offset"] = start + np.cumsum(sizes, dtype=np.int64) - sizes
    records["size"] = sizes
    records["crc"] = crcs
    records["flags"] = flags
    records["check"] = record_checks(records)
    return records


def shard_sizes(folder: Path) -> dict[str, int]:
    """Whole index records by shard name, eldest shard first. Raises FileNotFoundError where the folder is gone."""
    while True:
        before = folder.stat().st_mtime_ns
        sizes = {}
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".index"):
                    with suppress(FileNotFoundError):
                        sizes[entry.name[:-6]] = entry.stat().st_size // RECORD.itemsize
        # a listing under way while gc puts one shard in the place of others may show neither
        if folder.stat().st_mtime_ns == before:
            return dict(sorted(sizes.items()))


def read_records(folder: Path, name: str, start: int, stop: int, row_bytes: int | None) -> tuple[Records, Records]:
    """(readable, damaged) records start..stop-1 of a shard; damaged ones fail their check or lack their row.

    row_bytes: of every row, None where rows are ragged.
    """
    with (folder / f"{name}.index").open("rb") as stream:
        stream.seek(start * RECORD.itemsize)
        data = stream.read((stop - start) * RECORD.itemsize)
    records = np.frombuffer(data, RECORD, len(data) // RECORD.itemsize)
    end = rows_size(folder, name)  # after the index: rows are written first
    good = (record_checks(records) == records["check"]) & (records["offset"] <= end)
    good &= records["size"] <= end - np.minimum(records["offset"], end)
    if row_bytes is not None:
        good &= (records["size"] == row_bytes) & (records["offset"] % row_bytes == 0)
    if good.all():
        return records, records[:0]
    return records[good], records[~good]


def rows_size(folder: Path, name: str) -> int:
    """Bytes of rows that a shard has, 0 where the file is lost."""
    try:
        return (folder / f"{name}.rows").stat().st_size
    except FileNotFoundError:
        return 0


def made_by(folder: Path, name: str) -> Made:
    """What computed a shard's rows; engine `unknown` where its header is lost."""
    try:
        return Made.parse((folder / f"{name}.json").read_bytes())
    except OSError:
        return Made("unknown")


def write_all(handle: int, data: memoryview) -> None:
    """Write all of the bytes and wait until they are on the disk."""
    while data:
        data = data[os.write(handle, data) :]
    os.fsync(handle)
