"""Data versions by DVC: which bytes the data are, what changed, and which stages are stale.

The only module that imports DVC. Every function opens the repository for itself and closes it again.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tl_core.errors import UserError

EXAMPLES = 5  # names listed of what was added, removed or modified


@dataclass(frozen=True)
class Tracked:
    """The .dvc file that records the data, and how the workspace stands to it."""

    file: str
    state: Literal["recorded", "modified", "missing"]


@dataclass(frozen=True)
class FileChanges:
    """What changed in the data's files since the pipeline last versioned them.

    Each kind: (number of files, bytes, first names). known: False where the last version's list is not at hand.
    """

    files: int
    bytes: int
    known: bool
    added: tuple[int, int, tuple[str, ...]] = (0, 0, ())
    removed: tuple[int, int, tuple[str, ...]] = (0, 0, ())
    modified: tuple[int, int, tuple[str, ...]] = (0, 0, ())

    def describe(self) -> str:
        """One sentence for people: counts, sizes and some names."""
        total = f"{self.files:,} file{'' if self.files == 1 else 's'}, {_size(self.bytes)}"
        if not self.known:
            return f"{total}; no earlier version to compare with"
        kinds = {"added": self.added, "removed": self.removed, "modified": self.modified}
        parts = [
            f"{count:,} {kind} ({_size(size)}: {', '.join(names)}{', ...' if count > len(names) else ''})"
            for kind, (count, size, names) in kinds.items()
            if count
        ]
        return f"{total}; " + ("; ".join(parts) if parts else "unchanged since the last version")


def stale_stages(root: Path, stages: Sequence[str]) -> dict[str, list[str]]:
    """The stages that must run again, each with what changed; a stage that is up to date is left out."""
    with _repo(root) as repo:
        # a bare stage name would be looked up in the current folder's pipeline
        found = repo.status(targets=[f"{root / 'dvc.yaml'}:{stage}" for stage in stages])
    return {address.rpartition(":")[2]: _reasons(entries) for address, entries in found.items()}


def tracked(root: Path, data: Path) -> Tracked | None:
    """How the data are tracked, or None where no .dvc file covers them."""
    with _repo(root) as repo:
        out = _out(repo, data)
        if out is None:
            return None
        file = Path(out.stage.path).relative_to(repo.root_dir).as_posix()
        if not out.exists:
            return Tracked(file, "missing")
        return Tracked(file, "modified" if out.changed_checksum() else "recorded")


def recorded_digests(root: Path, data: Path) -> dict[str, str] | None:
    """md5 of every file in the data's folder (a table's own folder), by path relative to it, as DVC recorded them.

    None where DVC doesn't track the folder, or the workspace differs from what is recorded.
    """
    folder = data if data.is_dir() else data.parent
    with _repo(root) as repo:
        out = _out(repo, folder)
        # older DVC hashed text with its line ends changed: not the bytes that a loader reads
        if out is None or not out.exists or out.hash_name != "md5" or out.changed_checksum():
            return None
        files = _files(out, out.hash_info)
    if files is None:
        return None
    inside = folder.resolve().relative_to(Path(out.fs_path).resolve()).parts
    depth = len(inside)
    return {"/".join(key[depth:]): md5 for key, md5 in files.items() if key[:depth] == inside and len(key) > depth}


def changes(root: Path, data: Path, stage: str) -> FileChanges | None:
    """What changed in the tracked data since `stage` last ran: dvc.lock names the version it saw.

    None where DVC doesn't track the data.
    """
    with _repo(root) as repo:
        out = _out(repo, data)
        if out is None:
            return None
        new = _files(out, out.hash_info) or {}
        before = _locked(repo, stage, out)
        old = _files(out, before) if before else None
        size = {md5: _cached_size(out, md5) for md5 in {*new.values(), *(old or {}).values()}}
    total = sum(size[md5] for md5 in new.values())
    if old is None:
        return FileChanges(len(new), total, known=False)
    return FileChanges(
        len(new),
        total,
        known=True,
        added=_kind({k: new[k] for k in new.keys() - old.keys()}, size),
        removed=_kind({k: old[k] for k in old.keys() - new.keys()}, size),
        modified=_kind({k: new[k] for k in new.keys() & old.keys() if new[k] != old[k]}, size),
    )


def initialise(root: Path, *, git: bool) -> None:
    """Make `root` a DVC project without usage reports. Raises UserError where DVC refuses."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # DVC's own welcome
            repo = Repo.init(str(root), no_scm=not git, subdir=git and not (root / ".git").exists())
    except DvcException as error:
        raise UserError(f"DVC can't make a project of {root}: {error}") from error
    try:
        with repo.config.edit("repo") as settings:
            settings["core"]["analytics"] = False
            settings["core"]["autostage"] = git
    finally:
        repo.close()


@contextlib.contextmanager
def _repo(root: Path) -> Iterator[Any]:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        repo = Repo(str(root), _wait_for_lock=True)
        try:
            yield repo
        finally:
            repo.close()
    except DvcException as error:
        raise UserError(f"DVC can't read the project {root}: {error}") from error


def _out(repo: Any, data: Path) -> Any | None:
    """The data source (`dvc add`) that holds the path, if any."""
    path = Path(data).resolve()
    for out in repo.index.outs:
        if out.stage.is_data_source and path.is_relative_to(Path(out.fs_path).resolve()):
            return out
    return None


def _files(out: Any, hash_info: Any) -> dict[tuple[str, ...], str] | None:
    """md5 by path parts inside the tracked folder; the one file under its own name; None where not in the cache."""
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.errors import ObjectFormatError

    if not hash_info:
        return None
    if not hash_info.isdir:
        return {(Path(out.fs_path).name,): hash_info.value}
    try:
        tree: Any = Tree.load(out.cache, hash_info)
        return {key: info.value for key, (_, info) in tree.iteritems()}
    except (FileNotFoundError, ObjectFormatError):
        return None


def _locked(repo: Any, stage: str, out: Any) -> Any | None:
    """The hash of the data that dvc.lock records for the stage's last run."""
    for candidate in repo.index.stages:
        if getattr(candidate, "name", None) == stage:  # .dvc files are stages without a name
            for dep in candidate.deps:
                if dep.fs_path == out.fs_path:
                    return dep.hash_info
    return None


def _cached_size(out: Any, md5: str) -> int:
    try:
        return Path(out.cache.oid_to_path(md5)).stat().st_size
    except OSError:
        return 0  # a version that was never fetched to this machine


def _kind(files: Mapping[tuple[str, ...], str], size: Mapping[str, int]) -> tuple[int, int, tuple[str, ...]]:
    names = sorted("/".join(key) for key in files)
    return len(names), sum(size[md5] for md5 in files.values()), tuple(names[:EXAMPLES])


def _reasons(entries: Sequence[Any]) -> list[str]:
    """`[{"changed deps": {"data": "modified"}}, "changed command"]` as short sentences."""
    reasons: list[str] = []
    for entry in entries:
        if isinstance(entry, str):
            reasons.append(entry)
            continue
        for what, items in entry.items():
            for name, state in items.items():
                detail = ", ".join(f"{k} {v}" for k, v in state.items()) if isinstance(state, dict) else state
                reasons.append(f"{what.removeprefix('changed ')} {name}: {detail}")
    return reasons


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
