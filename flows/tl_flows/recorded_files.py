"""The files that a project's data and step outputs consist of, as DVC recorded them last."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tl_core.workspace import STEPS
from tl_flows.project import PIPELINE
from tl_flows.versioning import repository


@dataclass(frozen=True)
class Recorded:
    """A tracked file or folder. files: name below it (of a file: its own) -> md5; None where `why` says so.

    here: the files that are there, by the same names; remedy: how it comes back; lost: what is recorded can't be told
    any more.
    """

    kind: Literal["data", "output"]
    name: str
    files: Mapping[str, str] | None
    here: Mapping[str, Path] = field(repr=False)
    remedy: str
    why: str = ""
    lost: bool = False

    def present(self) -> dict[str, Path]:
        """Those that are still there."""
        return {name: path for name, path in self.here.items() if path.is_file()}


def recorded_files(root: Path) -> list[Recorded]:
    """What a project reads by DVC, and what its steps have made, the data first; data outside of DVC are left out."""
    with repository(root) as repo:
        pipeline = (root / PIPELINE).resolve()
        steps = [stage for stage in repo.index.stages
                 if getattr(stage, "name", None) in STEPS and Path(stage.path).resolve() == pipeline]  # fmt: skip
        read = [dep.fs_path for stage in steps if stage.name == STEPS[0] for dep in stage.deps]
        data = [_recorded(root, repo, "data", out, part) for out, part in _data(repo, root, read)]
        steps.sort(key=lambda stage: STEPS.index(stage.name))
        made = [_recorded(root, repo, "output", out, out.fs_path) for stage in steps for out in stage.outs]
    return [*data, *made]


def _data(repo: Any, root: Path, read: list[str]) -> Iterator[tuple[Any, str]]:
    """Tracked data (`dvc add`) in the project's folder, and the part that the project reads of others."""
    for out in repo.index.outs:
        if not out.stage.is_data_source:
            continue
        parts = [path for path in read if repo.fs.isin(path, out.fs_path)]
        if repo.fs.isin(out.fs_path, str(root.resolve())) or any(
            repo.fs.isin_or_eq(out.fs_path, path) for path in read
        ):
            yield out, out.fs_path
        else:
            yield from ((out, part) for part in parts)


def _recorded(root: Path, repo: Any, kind: Literal["data", "output"], out: Any, place: str) -> Recorded:
    name = Path(os.path.relpath(place, root.resolve())).as_posix()
    remedy = (
        "`tl run` makes it anew" if kind == "output" else f"put it back (dvc checkout {name}), or `tl run` records it"
    )
    paths = (
        [place] if Path(place).is_file() else list(out.dvcignore.find(out.fs, place)) if Path(place).is_dir() else []
    )
    here = {_below(path, place): Path(path) for path in paths}
    files, why = _hashes(out, place)
    return Recorded(kind, name, files, here, remedy, why, lost=files is None and out.is_dir_checksum)


def _hashes(out: Any, place: str) -> tuple[dict[str, str] | None, str]:
    """md5 by name below a place in an output; None, and why, where that is not known."""
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.errors import ObjectFormatError

    if not out.hash_info:
        return None, "never recorded; `tl run` does"
    if out.hash_name != "md5":
        return None, "recorded by an older DVC; `dvc status` checks it"
    if not out.hash_info.isdir:
        return {Path(place).name: out.hash_info.value}, ""
    try:
        tree: Any = Tree.load(out.cache, out.hash_info)
    except (FileNotFoundError, ObjectFormatError):
        return None, "DVC's cache has no sound list of its files; `dvc fetch` gets it where it was pushed"
    inside = Path(place).relative_to(out.fs_path).parts
    return {
        "/".join(key[len(inside) :]) or key[-1]: info.value
        for key, (_, info) in tree.iteritems()
        if key[: len(inside)] == inside
    }, ""


def _below(path: str, place: str) -> str:
    return Path(path).name if path == place else Path(path).relative_to(place).as_posix()
