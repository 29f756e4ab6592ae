"""Garbage collection: rows that nobody uses go, small shards become larger ones.

It runs beside readers and writers: shards that a living process writes and spaces that one has claims in are left
alone, what is replaced is unlinked only once its successor is on the disk, and folders are first renamed out of the
way. Whatever a kill leaves lying is swept by the next run.
"""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from tl_core.errors import UserError
from tl_core.store.compaction import Shard, compact, replaced_bytes
from tl_core.store.inventory import Inventory, glance_at, inventory, is_busy
from tl_core.store.locks import LocksUnsupported, locked
from tl_core.store.spaces import former_folders, home, space_folders
from tl_core.store.survey import folder_size, former_rows
from tl_core.store.uses import VersionUse, left_parts, used_keys, version_uses
from tl_core.store.writing import FULL, lock_path, told

_SMALL = 64 << 20  # bytes of a shard that is worth merging
_LARGE = 1 << 30  # bytes of a merged shard
_PATIENCE = 60.0  # seconds to wait for writers that are making a shard; they need milliseconds
_SETTLED = 3600.0  # seconds after which what belongs to no space is nobody's work in progress
_TRASH = ".trash-"


@dataclass(frozen=True)
class GcResult:
    """What gc did, or would do.

    rows_freed, rows_kept: rows on the disk, copies counted; bytes_freed, bytes_kept: of the whole store;
    spaces_removed: names of their folders; shards_skipped: those in spaces that a living process extracts into;
    full: whether the disk had no room for the new shards that some rows would have had to move to.
    """

    rows_freed: int = 0
    bytes_freed: int = 0
    rows_kept: int = 0
    bytes_kept: int = 0
    spaces_removed: tuple[str, ...] = ()
    shards_skipped: int = 0
    full: bool = False


@dataclass(frozen=True)
class _Action:
    """Something to do, what it frees, and the space that it removes, if any. do: returns whether it could."""

    do: Callable[[], bool]
    bytes: int
    rows: int = 0
    removes: str | None = None


def collect(root: Path, keep_last: int | None, max_size: int | None, dry_run: bool) -> GcResult:
    """FeatureStore.gc()."""
    if any(limit is not None and limit < 0 for limit in (keep_last, max_size)):
        raise ValueError(f"keep_last {keep_last}, max_size {max_size}; they can't be negative")
    if not home(root).exists() and not former_folders(root):
        return GcResult(bytes_kept=folder_size(root))
    try:
        with told(root):
            home(root).mkdir(exist_ok=True)
            with _alone(root):
                return _collect(root, keep_last, max_size, dry_run)
    except LocksUnsupported:
        raise UserError(
            f"the file system of the feature store {root} has no file locks, so that gc can't tell what other "
            "processes write; end them and delete folders in it by hand (`tl cache info` lists them)"
        ) from None


def _collect(root: Path, keep_last: int | None, max_size: int | None, dry_run: bool) -> GcResult:
    before = folder_size(root)
    versions = version_uses(root)
    with _nobody_begins(root):  # what is finished now stays so: a shard's writer never comes back to it
        glances = [glance for folder in space_folders(root) if (glance := glance_at(folder))]
    spaces = {g.folder.name: inventory(g, _wanted(g.folder.name, versions, keep_last)) for g in glances}
    rows = sum(one.rows for one in spaces.values()) + sum(map(former_rows, former_folders(root)))
    unused = [] if keep_last is None else [version.folder for version in versions[keep_last:]]

    gone = {name for name, one in spaces.items() if not (one.in_use or one.kept)}
    todo = _todo(root, spaces, gone, unused)
    if max_size is not None:
        for name in _least_used_first(spaces, gone, versions):
            if before - sum(action.bytes for action in todo) <= max_size:
                break
            gone.add(name)
            todo = _todo(root, spaces, gone, unused)

    done, full = list[_Action](), False
    for action in todo:
        try:
            if dry_run or action.do():
                done.append(action)
        except OSError as error:
            if error.errno not in FULL:
                raise
            full = True
    return GcResult(
        rows_freed=sum(action.rows for action in done),
        bytes_freed=sum(action.bytes for action in done),
        rows_kept=rows - sum(action.rows for action in done),
        bytes_kept=before - sum(action.bytes for action in done),
        spaces_removed=tuple(action.removes for action in done if action.removes is not None),
        shards_skipped=sum(one.skipped for one in spaces.values()),
        full=full,
    )


def _todo(root: Path, spaces: dict[str, Inventory], gone: set[str], unused: Sequence[Path]) -> list[_Action]:
    """All there is to do where some spaces are to be gone; what takes room last."""

    def discard(path: Path, rows: int = 0, removes: str | None = None) -> _Action:
        return _Action(partial(_discard, root, path), folder_size(path), rows, removes)

    parts = [path for path in left_parts(root, _SETTLED) if path.parent not in unused]
    todo = [discard(path) for path in [*home(root).glob(f"{_TRASH}*"), *unused, *parts]]
    todo += [discard(path, former_rows(path), path.name) for path in former_folders(root)]
    for name in sorted(gone):
        one = spaces[name]
        todo.append(_Action(partial(_remove, root, one), one.bytes, one.rows, name))
    todo += [discard(path) for path in _idle_engines(root, spaces, gone)]
    for name, one in spaces.items():
        if name not in gone and not one.glance.busy:
            orphans = one.glance.orphans
            todo.append(_Action(partial(_sweep, orphans), sum(map(folder_size, orphans))))
            todo += [_merging(one, shards) for shards in _batches(one)]
    return todo


def _wanted(name: str, versions: Sequence[VersionUse], keep_last: int | None) -> np.ndarray | None:
    """The keys that the last versions of the data used of a space, None where all are to stay."""
    if keep_last is None:
        return None
    used = [used_keys(version.spaces[name]) for version in versions[:keep_last] if name in version.spaces]
    return np.concatenate([np.zeros(0, "S16"), *used])


def _least_used_first(spaces: dict[str, Inventory], gone: set[str], versions: Sequence[VersionUse]) -> list[str]:
    """Spaces that may go, by their last use; by their last row where no use of them is known."""
    last: dict[str, float] = {}
    for version in versions:
        for name in version.spaces:
            last[name] = max(last.get(name, 0.0), version.last)
    used = {name: last.get(name, one.written) for name, one in spaces.items()}
    free = [name for name, one in spaces.items() if name not in gone and not one.in_use]
    return sorted(free, key=lambda name: (used[name], name))


def _idle_engines(root: Path, spaces: dict[str, Inventory], gone: set[str]) -> list[Path]:
    """Converted models of backbones without a space; not those being made before the first row is stored."""
    living = {name[:16] for name in spaces.keys() - gone}
    going = {name[:16] for name in gone}
    idle = []
    for path in sorted((root / "engines").glob("*-*")):
        owner = path.name.partition("-")[0]
        with suppress(FileNotFoundError):
            settled = time.time() - path.stat().st_mtime > _SETTLED
            if re.fullmatch(r"[0-9a-f]{16}", owner) and owner not in living and (owner in going or settled):
                idle.append(path)
    return idle


def _batches(one: Inventory) -> Iterator[list[Shard]]:
    """Shards of one header to be replaced together: those that hold anything to drop, and small ones."""
    groups = defaultdict(list)
    for shard in one.shards:
        if shard.waste > 0 or shard.bytes < _SMALL:
            groups[shard.made].append(shard)
    for group in groups.values():
        batch: list[Shard] = []
        for shard in group:
            if sum(each.kept_bytes for each in batch) > _LARGE:
                yield batch
                batch = []
            batch.append(shard)
        if len(batch) > 1 or batch[0].waste > 0:
            yield batch


def _merging(one: Inventory, shards: list[Shard]) -> _Action:
    dropped = sum(shard.rows - len(shard.kept) for shard in shards)
    return _Action(partial(_merge, one.glance.folder, shards), replaced_bytes(shards), dropped)


def _merge(folder: Path, shards: list[Shard]) -> bool:
    """Replace shards by one, unless somebody who has come meanwhile counts on their rows."""
    if is_busy(folder):
        return False
    with suppress(FileNotFoundError):  # the space was deleted by hand
        compact(folder, shards)
    return True


def _remove(root: Path, one: Inventory) -> bool:
    """Remove a space, unless somebody has come to it since it was looked at."""
    with _nobody_begins(root):
        now = glance_at(one.glance.folder)
        if now is None or now.live or now.busy or now.finished != one.glance.finished:
            return False
        return _discard(root, one.glance.folder)


def _discard(root: Path, path: Path) -> bool:
    """Delete a file or a folder, which nobody ever sees half deleted."""
    trash = home(root) / f"{_TRASH}{uuid.uuid4().hex}"
    with suppress(FileNotFoundError):
        path.rename(trash)
        if trash.is_dir():
            shutil.rmtree(trash)
        else:
            trash.unlink()
    return True


def _sweep(orphans: Sequence[Path]) -> bool:
    for path in orphans:
        path.unlink(missing_ok=True)
    return True


@contextmanager
def _nobody_begins(root: Path) -> Iterator[None]:
    """No process makes a shard meanwhile."""
    with locked(lock_path(root), exclusive=True, patience=_PATIENCE):
        yield


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(home(root) / ".gc.lock", exclusive=True, patience=1.0))
        except TimeoutError:
            raise UserError(f"another gc is at work in the feature store {root}; run again when it is done") from None
        yield
