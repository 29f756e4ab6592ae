"""The objects of DVC that a project's run at a commit consists of: in the cache here, and in the remote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tl_core.errors import UserError
from tl_core.workspace import STEPS
from tl_flows.project import PIPELINE
from tl_flows.stage_process import StageError
from tl_flows.versioning import default_remote, repository

LEGACY = "md5-dos2unix"  # how older DVC hashed; these lie in a folder of their own


@dataclass(frozen=True)
class Object:
    """One file of DVC's cache, or the list of a folder's files. path: where the cache has it, or would.

    output: the data or step output that it belongs to; remote: the one that its output names, None for the default.
    """

    md5: str
    path: Path
    output: str
    remote: str | None
    info: Any = field(repr=False, compare=False)

    @property
    def here(self) -> bool:
        """Whether the cache has it."""
        return self.path.is_file()

    @property
    def place(self) -> str:
        """Its path below DVC's cache folder."""
        folder = "" if self.info.name == LEGACY else "files/md5/"
        return f"{folder}{self.md5[:2]}/{self.md5[2:]}"


@dataclass(frozen=True)
class Found:
    """What a commit names. lost: outputs whose list of files is neither in the cache nor in the remote."""

    objects: tuple[Object, ...]
    lost: tuple[str, ...]
    has_data: bool


def objects_at(
    root: Path, commit: str, steps: Sequence[str] = STEPS, *, data: bool = True, whole: bool = False
) -> Found:
    """All objects of a project's step outputs at a commit, and, with `data`, of what its first step reads.

    whole: of a tracked folder that projects share, all of it and not just the part that this one reads. Lists of
    folders are fetched where the cache lacks them. Data that DVC doesn't track have no objects.
    """
    objects: dict[str, Object] = {}
    lost: list[str] = []
    has_data = False
    with repository(root) as repo:
        pipeline = (root.resolve() / PIPELINE).relative_to(Path(repo.root_dir).resolve()).as_posix()
        for _ in repo.brancher(revs=[commit], workspace=False):
            for out, part in _outputs(repo, pipeline, steps, data, whole):
                name = repo.fs.relpath(part or out.fs_path, repo.root_dir)
                has_data |= out.stage.is_data_source
                if out.is_dir_checksum and out.get_dir_cache() is None:
                    lost.append(name)
                    continue
                for infos in out.get_used_objs(filter_info=part).values():
                    for info in infos:
                        cache = repo.cache.legacy if info.name == LEGACY else repo.cache.local
                        path = Path(cache.oid_to_path(info.value))
                        objects[info.value] = Object(info.value, path, name, out.remote, info)
    return Found(tuple(objects.values()), tuple(lost), has_data)


def _outputs(
    repo: Any, pipeline: str, steps: Sequence[str], data: bool, whole: bool
) -> Iterator[tuple[Any, str | None]]:
    """(output, the part of it that the project reads) in the revision that the repository is switched to."""
    stages = {
        stage.name: stage
        for stage in repo.index.stages
        if getattr(stage, "name", None) and repo.fs.relpath(stage.path, repo.root_dir) == pipeline
    }
    for step in steps:
        yield from ((out, None) for out in (stages[step].outs if step in stages else ()) if out.use_cache)
    if not data or STEPS[0] not in stages:
        return
    read = [dep.fs_path for dep in stages[STEPS[0]].deps]
    for out in repo.index.outs:
        if out.stage.is_data_source:
            parts = [path for path in read if repo.fs.isin(path, out.fs_path)]
            covered = any(repo.fs.isin_or_eq(out.fs_path, path) for path in read)
            if covered or (parts and whole):
                yield out, None
            else:
                yield from ((out, part) for part in parts)


def fetch(root: Path, objects: Iterable[Object]) -> list[Object]:
    """Bring objects into the cache from the remote; gives those that are still missing."""
    wanted = [one for one in objects if not one.here]
    if wanted:
        with repository(root) as repo:
            if not default_remote(repo):
                return wanted
            try:
                for remote, group in _by_remote(wanted).items():
                    repo.cloud.pull([one.info for one in group], remote=remote)
            except (UserError, KeyboardInterrupt):
                raise
            except Exception as error:
                raise _away("fetched from", error) from error
    return [one for one in wanted if not one.here]


def push(root: Path, objects: Iterable[Object]) -> list[Object]:
    """Put objects into DVC's remote; gives those that neither it nor the cache here has, and nothing pushes.

    A folder's list belongs there only with all of its files: DVC takes the list for them. `push: false` in dvc.yaml
    doesn't matter here. Raises UserError without a remote, StageError (another try may help)
    where it can't be reached.
    """
    objects = list(objects)
    with repository(root) as repo:
        if objects and not default_remote(repo):
            raise UserError(
                f"DVC has no remote that models could be pushed to: dvc remote add -d NAME URL, and commit .dvc/config "
                f"of {repo.root_dir}"
            )
        groups = _by_remote(objects)
        for remote in groups:
            repo.cloud.get_remote_odb(remote, "push")  # a wrong setting is no fault of the network
        missing: list[Object] = []
        try:
            for remote, group in groups.items():
                missing += _missing(repo, remote, group)
            if missing:
                return missing
            for remote, group in groups.items():
                failed = repo.cloud.push([one.info for one in group], remote=remote).failed
                if failed:
                    raise OSError(f"{len(failed):,} of {len(group):,} files")
        except (UserError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise _away("pushed to", error) from error
    return []


def _missing(repo: Any, remote: str | None, objects: Sequence[Object]) -> list[Object]:
    away = [one for one in objects if not one.here]
    if not away:
        return []
    there = {
        name: set(repo.cloud.get_remote_odb(remote, "push", hash_name=name).oids_exist([one.md5 for one in group]))
        for name, group in _by(away, "name").items()
    }
    return [one for one in away if one.md5 not in there[one.info.name]]


def _by(objects: Iterable[Object], key: str) -> dict[str, list[Object]]:
    groups: dict[str, list[Object]] = defaultdict(list)
    for one in objects:
        groups[getattr(one.info, key)].append(one)
    return groups


def _by_remote(objects: Iterable[Object]) -> dict[str | None, list[Object]]:
    groups: dict[str | None, list[Object]] = defaultdict(list)
    for one in objects:
        groups[one.remote].append(one)
    return groups


def _away(what: str, error: Exception) -> StageError:
    told = (str(error).splitlines() or [""])[0] or type(error).__name__
    return StageError(f"the models can't be {what} DVC's remote: {told}; mend that and try again", may_pass=True)
