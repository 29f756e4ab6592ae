"""What gc finds in a space: the finished shards and which of their rows are to stay."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_core.errors import FormatError
from tl_core.store import claims
from tl_core.store.compaction import SUFFIXES, Shard
from tl_core.store.index import SpaceIndex
from tl_core.store.locks import is_held
from tl_core.store.reading import chunks, read_bytes
from tl_core.store.shards import made_by
from tl_core.store.spaces import FACTS, SpaceFacts, open_space


@dataclass(frozen=True)
class Glance:
    """A space's folder as gc finds it.

    files: their status by name; live: shards that a living process writes; busy: whether one has claims here, so
    that nothing in the space is touched.
    """

    folder: Path
    facts: SpaceFacts | None
    files: Mapping[str, os.stat_result]
    live: frozenset[str]
    busy: bool

    @property
    def finished(self) -> frozenset[str]:
        """Shards that nobody writes any more; nobody ever will."""
        return frozenset(name[:-6] for name in self.files if name.endswith(".index")) - self.live

    @property
    def orphans(self) -> list[Path]:
        """Files of killed processes that belong to no shard, space or living claims."""
        return [self.folder / name for name in sorted(self.files) if self._is_orphan(name)]

    def _is_orphan(self, name: str) -> bool:
        stem, _, kind = name.rpartition(".")
        if kind in ("rows", "json", "part"):
            return name != FACTS and f"{stem}.index" not in self.files
        return name.startswith(f".{FACTS}.") or (name.endswith(claims.SUFFIX) and not self.busy)


@dataclass(frozen=True)
class Inventory:
    """What is in a space, and which of it is to stay. bytes, rows: that it has, copies counted; shards: finished."""

    glance: Glance
    bytes: int
    rows: int
    shards: tuple[Shard, ...]

    @property
    def in_use(self) -> bool:
        """Whether a living process is at work in the space."""
        return self.glance.busy or bool(self.glance.live)

    @property
    def skipped(self) -> int:
        """Shards that are left alone for a living process's sake."""
        return len(self.glance.live) + (len(self.shards) if self.glance.busy else 0)

    @property
    def kept(self) -> int:
        """Rows that are to stay, those of living writers included."""
        return self.rows - sum(shard.rows - len(shard.kept) for shard in self.shards)

    @property
    def written(self) -> float:
        """When the last row came, in seconds since 1970."""
        return max((s.st_mtime for name, s in self.glance.files.items() if name.endswith(".index")), default=0.0)


def glance_at(folder: Path) -> Glance | None:
    """A look at a space's folder; None where it is none that this tl understands.

    To be taken while nobody begins a shard. Raises LocksUnsupported, OSError.
    """
    try:
        facts = open_space(folder)
        files = {path.name: path.stat() for path in folder.iterdir()}
    except (FormatError, FileNotFoundError):  # damaged, newer, or a file went under the look: another time
        return None
    if facts is None and any(name.endswith(".index") for name in files):
        return None  # without its facts nobody reads them; verify tells
    live = frozenset(name[:-6] for name in files if name.endswith(".index") and is_held(folder / name))
    return Glance(folder, facts, files, live, is_busy(folder))


def is_busy(folder: Path) -> bool:
    """Whether a living process has claims in a space."""
    for path in folder.glob(f"*{claims.SUFFIX}"):
        with suppress(FileNotFoundError):
            if is_held(path):
                return True
    return False


def inventory(glance: Glance, wanted: np.ndarray | None) -> Inventory:
    """What is in the space that was looked at.

    wanted: keys (S16) of rows that stay, None where all do; of several rows of one key the eldest that is whole does.
    """
    shards, rows = [], 0
    if glance.facts is not None:
        index = SpaceIndex(glance.folder, glance.facts.row_bytes)
        index.refresh()
        rows = len(index.records)
        stays = np.zeros(rows, bool)
        at = _whole(glance.folder, index)
        if wanted is not None:
            at = index.find(wanted)
        stays[at[at >= 0]] = True
        for number, name in enumerate(index.names):
            if name in glance.finished:
                mine = index.shard == number
                kept = np.sort(index.records[mine & stays], order="offset")
                size = sum(glance.files[f"{name}{s}"].st_size for s in SUFFIXES if f"{name}{s}" in glance.files)
                shards.append(Shard(name, made_by(glance.folder, name).json, size, int(mine.sum()), kept))
    shards.sort(key=lambda shard: shard.name)
    return Inventory(glance, sum(status.st_size for status in glance.files.values()), rows, tuple(shards))


def _whole(folder: Path, index: SpaceIndex) -> np.ndarray:
    """Positions of the eldest row of each key; where a key has several, of the eldest that is whole."""
    while True:
        positions, copies = index.distinct()
        several = positions[copies > 1]
        damaged = []
        for part in chunks(index.records["size"][several]):
            at = several[part]
            _, whole = read_bytes(folder, index.names, index.shard[at], index.records[at])
            damaged.append(at[~whole])
        lost = np.concatenate([np.zeros(0, np.int64), *damaged])
        if not len(lost):
            return positions
        index.forget(lost)
