"""Tonight's data: a folder or table copied into the worktree, only what is new, changed or gone."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tl_core.errors import UserError

TRIES = 3
PAUSE_SECONDS = 1.0
SETTLED_NS = 2_000_000_000  # a file changed so recently may change again within the same tick of the clock


@dataclass(frozen=True)
class Copied:
    """What a copy changed: names relative to the data, in order."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def any(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def describe(self) -> str:
        """`3 files added, 1 removed`; empty where nothing was."""
        kinds = {"added": self.added, "changed": self.changed, "removed": self.removed}
        parts = [f"{len(names):,} {kind}" for kind, names in kinds.items() if names]
        return f"files: {', '.join(parts)}" if parts else ""


def mirror(source: Path, target: Path, scratch: Path) -> Copied:
    """Make `target` what `source` is: files that differ by size or time are copied, those that are gone removed.

    scratch: a folder on the same disk, so that every file arrives whole or not at all. Links are followed. Raises
    UserError where the source is missing or has no files, and with the name of a file that is still being written or
    can't be read.
    """
    if not source.exists():
        raise UserError(f"no data in {source}; name the folder or table that the new data are in")
    if source.is_file():
        return _one(source, target, scratch)
    wanted, faults = dict(_files(source)), []
    if not wanted:
        raise UserError(f"{source} holds no files; a retrain on nothing is refused, the data stay as they were")
    if target.is_file():
        target.unlink()
    present = dict(_files(target)) if target.exists() else {}
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    removed = sorted(present.keys() - wanted.keys())
    for name in removed:  # first: a file may have become a folder, or a folder a file
        (target / name).unlink()
    _drop_empty(target)
    added: list[str] = []
    changed: list[str] = []
    for name, stat in wanted.items():
        if name in present and _same(stat, present[name]):
            continue
        try:
            _copy(source / name, target / name, scratch / "file")
        except OSError as error:
            if error.filename is None or Path(error.filename) != source / name:
                raise  # a full disk is no fault of the file
            faults.append(f"{source / name}: {error.strerror}")
        except UserError as error:
            faults.append(str(error))
        (changed if name in present else added).append(name)
    if faults:
        raise UserError("\n".join(faults))
    return Copied(tuple(added), tuple(changed), tuple(removed))


def _one(source: Path, target: Path, scratch: Path) -> Copied:
    if target.is_dir():
        raise UserError(f"{source} is a file, but the project's data ({target.name}) are a folder; name a folder")
    there = target.is_file()
    if there and _same(source.stat(), target.stat()):
        return Copied((), (), ())
    scratch.mkdir(parents=True, exist_ok=True)
    _copy(source, target, scratch / "file")
    return Copied((), (target.name,), ()) if there else Copied((target.name,), (), ())


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every file below a folder, by its path there, in order; a link to nothing is told when it is copied."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            try:
                yield path.relative_to(folder).as_posix(), path.stat()
            except OSError:
                yield path.relative_to(folder).as_posix(), path.lstat()


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return one.st_size == other.st_size and one.st_mtime_ns == other.st_mtime_ns


def _copy(source: Path, target: Path, part: Path) -> None:
    for _ in range(TRIES):
        before = source.stat()
        shutil.copy2(source, part)
        after = source.stat()
        if _same(before, after) and part.stat().st_size == after.st_size:
            if abs(time.time_ns() - after.st_mtime_ns) < SETTLED_NS:
                # looked at again next time: a change within the clock's tick would go unseen
                os.utime(part, ns=(after.st_atime_ns, after.st_mtime_ns - 1))
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
            return
        time.sleep(PAUSE_SECONDS)
    raise UserError(f"{source} changes while it is read; the next run takes it when it is whole")


def _drop_empty(folder: Path) -> None:
    for place, _, _ in os.walk(folder, topdown=False):
        if Path(place) != folder and not any(Path(place).iterdir()):
            Path(place).rmdir()
