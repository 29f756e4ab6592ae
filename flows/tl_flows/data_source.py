"""The data of a project as DVC tracks them: an output of `dvc add`, and the place in it that the project reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tl_flows.git import GitError, git


@dataclass(frozen=True)
class Source:
    """Data in a data source of DVC (`dvc add`): the output, the data's place in it, and what is recorded there.

    inside: path parts, none where the data are the output itself; recorded: DVC's object, None where unknown.
    """

    out: Any
    path: Path
    inside: tuple[str, ...]
    recorded: Any | None

    def modified(self) -> bool:
        """Whether the workspace differs from what is recorded; hashes of unchanged files come from DVC's own cache."""
        if not self.inside or self.recorded is None:
            return bool(self.out.changed_checksum())
        return bool(self.digest() != self.recorded.hash_info)

    def digest(self) -> Any:
        """DVC's hash of what lies in the data's place."""
        from dvc_data.hashfile.build import build

        out, path = self.out, str(self.path)
        _, _, found = build(out.cache, path, out.fs, out.hash_name, ignore=out.dvcignore, dry_run=True)
        return found.hash_info

    def keep_list(self) -> None:
        """Keep the list of a part's files in DVC's cache; by itself DVC keeps only the list of the whole.

        dvc.lock names it by its hash, so that the next version can be compared with this one.
        """
        if self.inside and self.recorded is not None and self.recorded.hash_info.isdir:
            from dvc_data.hashfile.db import add_update_tree

            add_update_tree(self.out.cache, self.recorded)


def source_of(repo: Any, data: Path) -> Source | None:
    outs = [out for out in repo.index.outs if out.stage.is_data_source]
    for path in (place_of(data), data.resolve()):  # the second: a link that the user made to tracked data
        for out in outs:
            place = place_of(Path(out.fs_path))
            if path.is_relative_to(place):
                inside = path.relative_to(place).parts
                # DVC's own spelling of the path: the project may have been reached through a link
                return Source(out, Path(out.fs_path, *inside), inside, object_of(out, out.hash_info, inside))
    return None


def place_of(path: Path) -> Path:
    """The path with links resolved but its own: DVC may have linked a tracked file into its cache."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 - data/x/.. is data, whatever x links to
    return path.parent.resolve() / path.name


def object_of(out: Any, hash_info: Any, inside: tuple[str, ...]) -> Any | None:
    """DVC's object of a part of a tracked folder, or of the whole; None where the cache doesn't have its list."""
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.errors import ObjectFormatError

    if not hash_info:
        return None
    if not hash_info.isdir:
        return out.cache.get(hash_info.value)
    try:
        tree: Any = Tree.load(out.cache, hash_info)
    except (FileNotFoundError, ObjectFormatError):
        return None
    return tree.get_obj(out.cache, inside) if inside else tree


def overtaken(source: Source) -> str | None:
    """The commit whose version of the data lies in their place while the .dvc file has moved on without them.

    A pull or a checkout by git alone does that. None where anything in the data was changed since the .dvc file was
    written: then they were brought there, or changed back, on purpose.
    """
    file = Path(source.out.stage.path)
    try:
        written = file.stat().st_ctime_ns
        if any(os.lstat(path).st_ctime_ns >= written for path in _all(source.path)):
            return None
        commits = git(file.parent, "log", "--all", "--max-count=200", "--format=%H", "--", file.name).splitlines()
        if len(commits) < 2 or not source.modified():
            return None
        here = source.digest()
        return next((one for one in commits if _recorded_in(one, source) == here), None)
    except (OSError, GitError):  # something in them goes away just now; no git, or no commit yet
        return None


def _all(path: Path) -> Iterator[Path]:
    yield path
    for folder, folders, names in os.walk(path):
        yield from (Path(folder, name) for name in (*folders, *names))


def _recorded_in(commit: str, source: Source) -> Any | None:
    """DVC's hash of the data in a commit's .dvc file; None where that can't be told."""
    from dvc_data.hashfile.hash_info import HashInfo

    file = Path(source.out.stage.path)
    try:
        outs = yaml.safe_load(git(file.parent, "show", f"{commit}:./{file.name}"))["outs"]
        (told,) = (out["md5"] for out in outs if out["path"] == source.out.def_path and out.get("hash") == "md5")
    except (GitError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return None
    whole = HashInfo("md5", told)
    if not source.inside:
        return whole
    found = object_of(source.out, whole, source.inside) if whole.isdir else None
    return None if found is None else found.hash_info
