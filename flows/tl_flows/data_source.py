"""The data of a project as DVC tracks them: an output of `dvc add`, and the place in it that the project reads."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tl_core.errors import UserError
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
    """The commit whose version of the data still lies there, while git has moved their .dvc file on without them.

    A pull or a checkout by git alone does that. None where anything in the data was changed since the .dvc file was
    written, or DVC wrote that file: then they were brought there, or changed back, on purpose. None as well where it
    can't be told.
    """
    from dvc_objects.errors import ObjectFormatError

    file = Path(source.out.stage.path)
    try:
        written = file.stat().st_ctime_ns
        if _touched_since(written, source.path):
            return None
        git(file.parent, "diff", "--quiet", "HEAD", "--", file.name)  # fails where DVC wrote it last
        history = git(file.parent, "log", "--full-history", "--max-count=200", "--format=%H %ct", "--", file.name)
        commits = dict(line.split() for line in history.splitlines())
        if len(commits) < 2 or written // 10**9 < int(next(iter(commits.values()))):  # DVC wrote, then it was committed
            return None
        here, told = source.digest(), _recorded_hash(source)
        if told is None or here == told:
            return None
        return next((one for one, found in _earlier(source, commits) if found == here), None)
    except (OSError, GitError, UserError, ObjectFormatError):  # something goes away just now; no git; a damaged list
        return None


def _touched_since(instant: int, path: Path) -> bool:
    """Whether anything was changed in a file or folder since an instant (ns), by the kernel's own clock of changes.

    What DVC links into its cache changes there whenever it is linked elsewhere: by the time of its content instead.
    """
    below = (Path(folder, name) for folder, *names in os.walk(path) for name in itertools.chain(*names))
    for facts in map(os.lstat, itertools.chain([path], below)):
        linked = stat.S_ISREG(facts.st_mode) and facts.st_nlink > 1
        if (facts.st_mtime_ns if linked else facts.st_ctime_ns) >= instant:
            return True
    return False


def _recorded_hash(source: Source) -> Any | None:
    """DVC's hash of what is recorded; of a part the whole's list is fetched where it is not here."""
    if not source.inside:
        return source.out.hash_info
    tree = source.out.get_dir_cache() if source.recorded is None else None
    found = tree.get_obj(source.out.cache, source.inside) if tree else source.recorded
    return None if found is None else found.hash_info


def _earlier(source: Source, commits: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Commits, each with DVC's hash of the data in its .dvc file; without those that tell none, or the same again."""
    from dvc_data.hashfile.hash_info import HashInfo

    file, seen = Path(source.out.stage.path), set()
    for commit in commits:
        try:
            outs = yaml.safe_load(git(file.parent, "show", f"{commit}:./{file.name}"))["outs"]
            (told,) = (out["md5"] for out in outs if out["path"] == source.out.def_path and out.get("hash") == "md5")
        except (GitError, yaml.YAMLError, KeyError, TypeError, ValueError):
            continue
        if told in seen:
            continue
        seen.add(told)
        whole = HashInfo("md5", told)
        if not source.inside:
            yield commit, whole
        elif whole.isdir and (found := object_of(source.out, whole, source.inside)) is not None:
            yield commit, found.hash_info
