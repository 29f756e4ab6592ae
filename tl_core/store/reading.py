"""Rows from a space's shards, by their records."""

from __future__ import annotations

import errno
import mmap
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from tl_core.store.shards import Records, checksums
from tl_core.store.spaces import SpaceFacts

CHUNK = 32 << 20
"""Bytes of rows that those who read a whole store hold at a time, where a single row is not larger."""

_SCATTERED = 4  # rows that a run must have on average to be read as one
_SPARSE = 8  # where one row in so many or more is read, the system's own reading ahead is right


class MissingRows(KeyError):  # noqa: N818 - named for what it carries
    """Rows that the store does not hold, or no longer whole. digests: whose."""

    def __init__(self, digests: Sequence[str]) -> None:
        super().__init__(f"{len(digests)} rows are not in the feature store, the first of {digests[0]}")
        self.digests = tuple(digests)


def read_fixed(
    facts: SpaceFacts, folder: Path, names: Sequence[str], shard: np.ndarray, records: Records
) -> tuple[np.ndarray, np.ndarray]:
    """(rows [N, *shape], whether each is whole: bool [N]) of a space of fixed rows.

    names, shard: the shards, and the number of each record's shard among them.
    """
    rows = np.zeros((len(records), facts.row_bytes or 0), np.uint8)
    for name, wanted in _by_shard(names, shard, records):
        with suppress(FileNotFoundError), (folder / f"{name}.rows").open("rb", buffering=0) as stream:
            _fill(rows, wanted, stream.fileno(), records["offset"][wanted].astype(np.int64))
    whole = checksums(rows.reshape(-1).data, records["size"].astype(np.int64)) == records["crc"]
    return rows.view(facts.dtype).reshape(len(records), *facts.shape), whole


def read_bytes(
    folder: Path, names: Sequence[str], shard: np.ndarray, records: Records
) -> tuple[list[bytes], np.ndarray]:
    """(the rows' bytes, whether each is whole: bool [N]) of a space of any rows."""
    data = [b""] * len(records)
    whole = np.zeros(len(records), bool)
    for name, wanted in _by_shard(names, shard, records):
        with suppress(FileNotFoundError), (folder / f"{name}.rows").open("rb", buffering=0) as stream:
            part = records[wanted]
            columns = part["offset"].tolist(), part["size"].tolist(), part["crc"].tolist()
            for i, offset, size, crc in zip(wanted.tolist(), *columns):
                with _damage():
                    data[i] = os.pread(stream.fileno(), size, offset)
                whole[i] = len(data[i]) == size and zlib.crc32(data[i]) == crc
    return data, whole


def chunks(sizes: np.ndarray) -> Iterator[slice]:
    """Slices of consecutive rows of up to CHUNK bytes together, one row at least. sizes: bytes of each, in order."""
    ends = np.cumsum(sizes, dtype=np.int64)
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + CHUNK, side="right")))
        yield slice(start, stop)
        start = stop


@contextmanager
def _damage() -> Iterator[None]:
    """What the disk can't read is damaged like what reads wrong; no other trouble may pass for damage."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def _by_shard(names: Sequence[str], shard: np.ndarray, records: Records) -> Iterator[tuple[str, np.ndarray]]:
    """The indices of the records in each shard, along its file."""
    place = (shard.astype(np.uint64) << np.uint64(44)) + records["offset"]  # shards of up to 16 TB; one fast sort
    order = np.argsort(place)
    bounds = np.flatnonzero(np.diff(shard[order])) + 1
    for part in np.split(order, bounds):
        if len(part):
            yield names[int(shard[part[0]])], part


def _fill(rows: np.ndarray, wanted: np.ndarray, handle: int, offsets: np.ndarray) -> None:
    """Read bytes from ascending offsets of a file into the wanted ones of rows uint8 [N, B].

    Rows that lie and are wanted one after the other are read at one go, scattered ones through a memory map.
    """
    size, count = rows.shape[1], os.fstat(handle).st_size // rows.shape[1]
    inside = offsets < count * size
    wanted, offsets = wanted[inside], offsets[inside]
    breaks = (np.flatnonzero((np.diff(offsets) != size) | (np.diff(wanted) != 1)) + 1).tolist()
    if _SCATTERED * len(breaks) < len(wanted):
        for start, stop in zip([0, *breaks], [*breaks, len(wanted)]):
            first, offset = int(wanted[start]), int(offsets[start])
            into = rows[first : first + stop - start].reshape(-1).data
            with _damage():
                while into and (done := os.preadv(handle, [into], offset)):
                    into, offset = into[done:], offset + done
    elif len(wanted):
        if len(wanted) < count // _SPARSE and hasattr(os, "posix_fadvise"):
            for offset in offsets.tolist():  # all at once: a quarter of the time from a disk
                os.posix_fadvise(handle, offset, size, os.POSIX_FADV_WILLNEED)
        mapped = mmap.mmap(handle, count * size, access=mmap.ACCESS_READ)
        rows[wanted] = np.frombuffer(mapped, np.uint8).reshape(count, size)[offsets // size]
