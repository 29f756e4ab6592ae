"""The index of one space in memory: which row of which shard holds a digest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tl_core.store.shards import Records, read_records, shard_sizes


class SpaceIndex:
    """Sorted keys over all shards of a space; refresh() takes in what any process has appended since."""

    def __init__(self, folder: Path, row_bytes: int) -> None:
        self._folder = folder
        self._row_bytes = row_bytes
        self._seen: dict[str, int] = {}  # records taken in, by shard
        self._records: dict[str, Records] = {}  # the readable ones among them
        self._sort()

    def refresh(self) -> None:
        """Read the records that are new since the last call; start over where a shard has gone."""
        sizes = shard_sizes(self._folder)
        if sizes == self._seen:
            return
        if any(sizes.get(name, -1) < seen for name, seen in self._seen.items()):
            self._seen, self._records = {}, {}
        for name, size in sizes.items():
            seen = self._seen.get(name, 0)
            good, _ = read_records(self._folder, name, seen, size, self._row_bytes)
            known = self._records.get(name)
            self._records[name] = good if known is None else np.concatenate([known, good])
        self._seen = sizes
        self._sort()

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Position of each key in `shard`, `row`, `crc` and `flags`, -1 where it is absent; int64 [N]."""
        at = np.searchsorted(self.keys, keys)
        found = np.zeros(len(keys), bool)
        inside = at < len(self.keys)
        found[inside] = self.keys[at[inside]] == keys[inside]
        return np.where(found, at, -1)

    def forget(self, positions: np.ndarray) -> None:
        """Leave out rows that turned out to be damaged, so that a sound copy or a recomputed row is found."""
        for number in np.unique(self.shard[positions]):
            name = self.names[number]
            rows = self.row[positions[self.shard[positions] == number]]
            records = self._records[name]
            self._records[name] = records[~np.isin(records["row"], rows)]
        self._sort()

    def _sort(self) -> None:
        self.names = sorted(self._records)  # by age, so that the stable sort puts the eldest row first
        parts = [self._records[name] for name in self.names]
        keys = np.concatenate([np.zeros(0, "S16"), *(p["key"] for p in parts)])
        order = np.argsort(keys, kind="stable")
        self.keys = keys[order]
        self.shard = np.repeat(np.arange(len(parts)), [len(p) for p in parts])[order]
        self.row = np.concatenate([np.zeros(0, np.uint64), *(p["row"] for p in parts)])[order].astype(np.int64)
        self.crc = np.concatenate([np.zeros(0, np.uint32), *(p["crc"] for p in parts)])[order]
        self.flags = np.concatenate([np.zeros(0, np.uint8), *(p["flags"] for p in parts)])[order]
