"""The index of one space in memory: which bytes of which shard hold a digest's row."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_core.store.shards import RECORD, Records, read_records, shard_sizes


@dataclass(frozen=True)
class _Run:
    """Some of the records, sorted by key, equal ones by age. An md5's first half alone tells nearly all apart."""

    high: np.ndarray  # uint64 [N]: the keys' first eight bytes
    low: np.ndarray  # uint64 [N]: the others
    position: np.ndarray  # int64 [N]: of the record

    def find(self, high: np.ndarray, low: np.ndarray) -> np.ndarray:
        """Position of the eldest record of each key, -1 where it is absent. high: ascending."""
        at = np.searchsorted(self.high, high)
        at[at == len(self.high)] = 0
        found = (self.high[at] == high) & (self.low[at] == low)
        result = np.where(found, self.position[at], -1)
        for i in np.flatnonzero(~found & (self.high[at] == high)):  # another key of the same first half
            stop = np.searchsorted(self.high, high[i], side="right")
            same = np.flatnonzero(self.low[at[i] : stop] == low[i])
            if same.size:
                result[i] = self.position[at[i] + same[0]]
        return result


class SpaceIndex:
    """Records of all shards of a space; refresh() takes in what any process has appended since.

    New records are sorted among themselves first and joined with others of about their number later, so that taking
    in a few beside a million costs little.
    """

    def __init__(self, folder: Path, row_bytes: int | None) -> None:
        self._folder = folder
        self._row_bytes = row_bytes
        self._clear()

    def _clear(self) -> None:
        self.names: list[str] = []
        self._seen: dict[str, int] = {}  # records taken in, by shard
        self._count = 0
        self._records = np.zeros(0, RECORD)  # the first _count are in use
        self._shard = np.zeros(0, np.int32)
        self._lost = np.zeros(0, np.int64)
        self._runs: list[_Run] = []

    @property
    def records(self) -> Records:
        """The readable records, in no particular order."""
        return self._records[: self._count]

    @property
    def shard(self) -> np.ndarray:
        """The number of each record's shard in `names`."""
        return self._shard[: self._count]

    def refresh(self) -> None:
        """Read the records that are new since the last call; start over where a shard has gone."""
        sizes = shard_sizes(self._folder)
        if sizes == self._seen:
            return
        if any(sizes.get(name, -1) < seen for name, seen in self._seen.items()):
            self._clear()
        try:
            start = self._count
            for name, size in sizes.items():
                if size > self._seen.get(name, -1):
                    self._take_in(name, size)
        except FileNotFoundError:  # a shard went meanwhile, or the whole space
            self._clear()
            return self.refresh()
        self._add_run(np.arange(start, self._count))
        return None

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Position of each key's eldest record in `records` and `shard`, -1 where it is absent; int64 [N]."""
        halves = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)
        order = np.argsort(halves[:, 0])  # probes in order walk through the memory once
        high, low = halves[order, 0], halves[order, 1]
        best = np.full(len(keys), -1)
        ages = self._ages()
        for run in self._runs:
            at = run.find(high, low)
            if len(self._runs) > 1:
                at = np.where((best >= 0) & ((at < 0) | (ages[self.shard[best]] <= ages[self.shard[at]])), best, at)
            best = at
        result = np.empty_like(best)
        result[order] = best
        return result

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions of each key's eldest record, by key, and how many records the key has."""
        run = self._sorted(self._kept())
        first = np.ones(len(run.high), bool)
        first[1:] = (run.high[1:] != run.high[:-1]) | (run.low[1:] != run.low[:-1])
        starts = np.flatnonzero(first)
        return run.position[starts], np.diff(starts, append=len(first))

    def forget(self, positions: np.ndarray) -> None:
        """Leave out rows that turned out to be damaged, so that a sound copy or a recomputed row is found."""
        self._lost = np.union1d(self._lost, positions)
        self._runs = []
        self._add_run(self._kept())

    def _kept(self) -> np.ndarray:
        return np.delete(np.arange(self._count), self._lost)

    def _take_in(self, name: str, size: int) -> None:
        new, _ = read_records(self._folder, name, self._seen.get(name, 0), size, self._row_bytes)
        if name not in self._seen:
            self.names.append(name)
        self._seen[name] = size
        end = self._count + len(new)
        if end > len(self._records):
            room = max(end, 2 * len(self._records))
            self._records = _grown(self.records, room)
            self._shard = _grown(self.shard, room)
        self._records[self._count : end] = new
        self._shard[self._count : end] = self.names.index(name)
        self._count = end

    def _add_run(self, positions: np.ndarray) -> None:
        if not len(positions):
            return
        while self._runs and len(self._runs[-1].position) < 2 * len(positions):
            positions = np.concatenate([self._runs.pop().position, positions])
        self._runs.append(self._sorted(positions))

    def _sorted(self, positions: np.ndarray) -> _Run:
        words = self._records.view(np.uint64).reshape(-1, RECORD.itemsize // 8)  # the key is the first two
        high = words[positions, 0]
        order = np.argsort(high)  # not stable, but several times faster than the sort that is
        positions, high = positions[order], high[order]
        low = words[positions, 1]
        tied = np.zeros(len(high), bool)
        tied[1:] = high[1:] == high[:-1]
        tied[:-1] |= tied[1:]
        if tied.any():
            among = positions[tied]
            again = np.lexsort((among, self._ages()[self.shard[among]], low[tied], high[tied]))
            positions[tied], low[tied] = among[again], low[tied][again]
        return _Run(high, low, positions)

    def _ages(self) -> np.ndarray:
        """Rank of each shard by age, 0 the eldest."""
        ranks = np.empty(len(self.names), np.int64)
        ranks[sorted(range(len(self.names)), key=self.names.__getitem__)] = np.arange(len(self.names))
        return ranks


def _grown(array: np.ndarray, room: int) -> np.ndarray:
    grown = np.empty(room, array.dtype)
    grown[: len(array)] = array
    return grown
