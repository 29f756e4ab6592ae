"""Which code runs a reproduction, against the code that made the run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_flows.code_version import FILE, installed_code, package_folder
from tl_flows.git import git
from tl_flows.retraining.worktree import Worktree


@dataclass(frozen=True)
class Code:
    """inputs: paths of the steps' inputs that are code, relative to the project; folders: the commit's own packages,
    to be imported before those that are installed; differs: in sentences, what is installed and did not make the run.
    """

    inputs: frozenset[str]
    folders: tuple[Path, ...]
    differs: tuple[str, ...]


def code_of(main: Path, tree: Worktree) -> Code:
    """Packages of tl and its plugins that lie in the project's repository run as the commit has them; others can't."""
    installed = installed_code()
    top = Path(git(main, "rev-parse", "--show-toplevel")).resolve()
    own = {name: place for name in installed if (place := _in_tree(name, top, tree.root)) is not None}
    inputs = {Path(os.path.relpath(place, tree.project)).as_posix() for place in own.values()}
    record = tree.project / FILE
    then = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    differs = _differs(then, {name: facts for name, facts in installed.items() if name not in own}) if then else ()
    return Code(frozenset({FILE, *inputs}), tuple(sorted({place.parent for place in own.values()})), tuple(differs))


def _in_tree(package: str, top: Path, tree: Path) -> Path | None:
    """The folder of a package in the commit's files, where the package that is installed is the repository's."""
    folder = package_folder(package)
    if folder is None or not folder.resolve().is_relative_to(top):
        return None
    place = tree / folder.resolve().relative_to(top)
    return place if place.is_dir() else None  # an environment inside the repository is no part of the commit


def _differs(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    for name in sorted({*then, *now}):
        one, other = then.get(name), now.get(name)
        if other is None:
            found.append(f"{name} {then[name]['version']} was part of the run and is not installed")
        elif one is None:
            found.append(f"{name} {other['version']} is installed, which the run did without")
        elif one["version"] != other["version"]:
            found.append(f"{name} {one['version']} made the run, {other['version']} is installed")
        elif one["sha256"] != other["sha256"]:
            found.append(f"{name} {one['version']} is installed with other content than made the run")
    return found
