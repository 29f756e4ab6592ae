"""Data versions by DVC: which bytes the data are, what changed, and which stages are stale.

The only module that imports DVC itself. Every function opens the repository for itself and closes it again.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tl_core.errors import UserError
from tl_core.workspace import STEPS
from tl_flows.data_source import Source, object_of, overtaken, place_of, source_of
from tl_flows.project import PIPELINE

EXAMPLES = 5  # names listed of what was added, removed or modified


@dataclass(frozen=True)
class Tracked:
    """The .dvc file that records the data, and how the workspace stands to it.

    file: relative to the project, `../../data.dvc` where the data of a sub-project lie in a folder above. record,
    fetch, restore: the arguments that make DVC do so; of a folder that several projects share, only the part read by
    this one. restore: fetch it, in place of what lies there.
    """

    file: str
    state: Literal["recorded", "modified", "missing"]
    record: tuple[str, ...]
    fetch: tuple[str, ...]

    @property
    def restore(self) -> tuple[str, ...]:
        command, *where = self.fetch
        return (command, "--force", *where)


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


def default_remote(repo: Any) -> str | None:
    """The name of the remote that data and models are fetched from and pushed to; None where none is set."""
    name: str | None = repo.config["core"].get("remote")
    return name


def stale_stages(root: Path, stages: Sequence[str]) -> dict[str, list[str]]:
    """The stages that must run again, each with what changed; a stage that is up to date is left out."""
    with repository(root) as repo:
        # a bare stage name would be looked up in the current folder's pipeline
        found = repo.status(targets=[f"{root / PIPELINE}:{stage}" for stage in stages])
    return {address.rpartition(":")[2]: _reasons(entries) for address, entries in found.items()}


def tracked(root: Path, data: Path) -> Tracked | None:
    """How the data are tracked, or None where no .dvc file covers them."""
    with repository(root) as repo:
        source = source_of(repo, _watched(repo, root, data))
        if source is None:
            return None
        file, path = _relative(Path(source.out.stage.path), root), _relative(source.path, root)
        # `dvc commit` of a part would record the whole, and put only the part into the cache
        record = ("add", path) if source.inside else ("commit", "--force", file)
        if not source.out.exists:
            return Tracked(file, "missing", record, ("pull", file))
        if not source.path.exists():
            return Tracked(file, "missing", record, ("pull", path))
        return Tracked(file, "modified" if source.modified() else "recorded", record, ("pull", path))


def left_behind(root: Path, data: Path) -> str | None:
    """Why the data must not become the latest version: they are an earlier one that git has left behind. None else."""
    with repository(root) as repo:
        source = source_of(repo, _watched(repo, root, data))
        commit = None if source is None else overtaken(source)
    if commit is None:
        return None
    found = tracked(root, data)
    assert found is not None
    fetch, record = (" ".join(("dvc", *command)) for command in (found.fetch, found.record))
    return (
        f"the data in {data} are an earlier version, that of commit {commit[:12]}: {found.file} has moved on since "
        "they were last touched, as `git pull` does, and records others. "
        f"In {root}, `{fetch}` brings those, `{record}` makes the earlier ones the latest again"
    )


def data_place(root: Path, data: Path) -> Path | None:
    """Where the data lie with all that makes the first step stale together with them; None outside of the repository.

    A table's files may lie beside it: then the folder that the stage watches.
    """
    with repository(root) as repo:
        place = _watched(repo, root, data)
        return place if place_of(place).is_relative_to(place_of(Path(repo.root_dir))) else None


def recorded_digests(root: Path, data: Path) -> dict[str, str] | None:
    """md5 of every file in the data's folder (a table's own folder), by path relative to it, as DVC recorded them.

    None where DVC doesn't track the folder, or the workspace differs from what is recorded.
    """
    folder = data if data.is_dir() else data.parent
    with repository(root) as repo:
        source = source_of(repo, folder)
        # older DVC hashed text with its line ends changed: not the bytes that a loader reads
        if source is None or source.out.hash_name != "md5" or not source.path.exists() or source.modified():
            return None
        files = _files(source.path, source.recorded)
    return None if files is None else {"/".join(key): md5 for key, md5 in files.items()}


def changes(root: Path, data: Path, stage: str) -> FileChanges | None:
    """What changed in the tracked data since `stage` last ran: dvc.lock names the version it saw.

    None where DVC doesn't track the data.
    """
    with repository(root) as repo:
        source = source_of(repo, data)
        if source is None:
            return None
        new = _files(source.path, source.recorded) or {}
        old = _files(source.path, _seen(repo, root, stage, source))
        source.keep_list()
        size = {md5: _cached_size(source.out, md5) for md5 in {*new.values(), *(old or {}).values()}}
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


def outputs_at(root: Path, revision: str, outputs: Sequence[str], folder: Path) -> None:
    """Copy outputs of a project (paths relative to it) as they were at a git revision to the same paths below `folder`.

    Raises UserError where git doesn't know the revision, or neither git nor DVC's cache has one of them.
    """
    with _files_at(root, revision) as (files, project):
        for output in outputs:
            target = folder / output
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files.cat_file(f"{project}{output}"))


def folder_at(root: Path, revision: str, output: str, folder: Path) -> bytes:
    """Copy all files of an output that is a folder into `folder`, as they were at a git revision.

    Returns DVC's own list of them, as JSON, whose md5 is the output's in dvc.lock. Raises UserError where git doesn't
    know the revision, or neither DVC's cache nor its remote has a file.
    """
    from dvc_data.hashfile.tree import Tree

    with _files_at(root, revision) as (files, project):
        tree, place = Tree(), f"{project}{output}"
        for path, facts in files.find(place, detail=True).items():
            name = Path(path).relative_to(place)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            files.get_file(path, str(folder / name))
            tree.add(name.parts, None, facts["dvc_info"]["entry"].hash_info)
    listing: bytes = tree.as_bytes()
    return listing


@contextlib.contextmanager
def _files_at(root: Path, revision: str) -> Iterator[tuple[Any, str]]:
    """(DVC's file system of the repository at a revision, what stands before paths of the project in it).

    What is asked of it in the block may raise as this does: UserError where something is not at hand.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError
    from dvc_data.index import DataIndexDirError

    with repository(root) as repo:
        project = root.resolve().relative_to(Path(repo.root_dir).resolve()).as_posix()
        try:
            # DVC's own way to a revision (by a folder's name) finds nothing in a folder of a larger git repository
            known = False
            for _ in repo.brancher(revs=[revision], workspace=False):
                known = True
                yield DVCFileSystem(repo=repo), "/" if project == "." else f"/{project}/"
            if not known:
                raise UserError(f"revision {revision!r} has no DVC repository (.dvc/) in {root}; name a later one")
        except SCMError as error:
            raise UserError(f"git knows no revision {revision!r} here ({error})") from error
        except (DvcException, DataIndexDirError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"the results of revision {revision!r} are not at hand: {error}; check it out and run `tl run`, or "
                "`dvc fetch` where they were pushed"
            ) from error


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
def repository(root: Path) -> Iterator[Any]:
    """DVC's own object of the repository that a project lies in. Raises UserError where DVC can't read it."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        repo = _open(Repo, root)
        try:
            yield repo
        finally:
            repo.close()
    except LockError as error:  # a stage that runs keeps its files, whatever the repository's lock was told to wait for
        holders = ", ".join(re.findall(r"\(PID (\d+)\)", str(error)))
        named = f" (process {holders})" if holders else ""
        raise UserError(f"another run works in the project {root}{named}; wait until it ends") from error
    except DvcException as error:
        raise UserError(f"DVC can't read the project {root}: {error}") from error


def _open(kind: Any, root: Path) -> Any:
    try:
        return kind(str(root), _wait_for_lock=True)
    except OSError as error:  # its folder for what all repositories of a machine share, unless told otherwise
        raise UserError(
            f"DVC can't work in {error.filename}: {error.strerror}; free or mend it, or name another folder for its "
            "records with DVC_SITE_CACHE_DIR"
        ) from error


def _files(path: Path, found: Any | None) -> dict[tuple[str, ...], str] | None:
    """md5 by path parts inside the data; one file under its own name."""
    if found is None:
        return None
    if not found.hash_info.isdir:
        return {(path.name,): found.hash_info.value}
    return {key: info.value for key, (_, info) in found.iteritems()}


def _seen(repo: Any, root: Path, stage: str, source: Source) -> Any | None:
    """The data as dvc.lock records them for the last run of the project's stage."""
    for dep in _dependencies(repo, root, stage):
        if source.path.is_relative_to(dep.fs_path):
            return object_of(source.out, dep.hash_info, source.path.relative_to(dep.fs_path).parts)
    return None


def _watched(repo: Any, root: Path, data: Path) -> Path:
    """The data with all that makes the first step stale together with them, where its stage watches more."""
    places = (Path(dep.fs_path) for dep in _dependencies(repo, root, STEPS[0]))
    return next((place for place in places if place_of(data).is_relative_to(place_of(place))), data)


def _dependencies(repo: Any, root: Path, stage: str) -> list[Any]:
    for candidate in repo.index.stages:  # of all pipelines of the repository; .dvc files are stages without a name
        if getattr(candidate, "name", None) == stage and Path(candidate.path).resolve() == (root / PIPELINE).resolve():
            return list(candidate.deps)
    return []


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(place_of(path), root.resolve())).as_posix()


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
