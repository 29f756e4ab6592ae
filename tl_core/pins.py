"""Which revision of a hub's backbone a run uses: what was first downloaded, until someone takes the entry out.

`backbones.lock` lies beside params.yaml (outside of a project, among the run's outputs) and belongs into git: a hub's
repository may change, and features, heads and bundles hold for the commit that they were made with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tl_core.errors import UserError
from tl_core.types import BackboneSpec
from tl_core.workspace import write_json

LOCK = "backbones.lock"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def read_pins(root: Path) -> dict[str, str]:
    """Hub id -> commit, as far as they are pinned under root. Raises UserError where the file is not such a table."""
    path = root / LOCK
    try:
        pins = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _unusable(path, str(error).splitlines()[0]) from error
    if not isinstance(pins, dict):
        raise _unusable(path, f"it holds a {type(pins).__name__}")
    wrong = [f"{name!r} has {commit!r}" for name, commit in pins.items() if not _is_commit(commit)]
    if wrong:
        raise _unusable(path, "; ".join(wrong))
    return pins


def pinned(spec: BackboneSpec, root: Path) -> BackboneSpec:
    """The spec at the commit that is pinned under root; the spec itself where none is, or it names its own revision."""
    return at_commit(spec, read_pins(root).get(spec.location)) if _may_move(spec) else spec


def at_commit(spec: BackboneSpec, commit: str | None) -> BackboneSpec:
    """The spec at a commit of its hub repository; itself without a commit, or where it names its own revision."""
    if commit is None or not _may_move(spec):
        return spec
    return replace(spec, revision=commit, base=spec.base and replace(spec.base, revision=commit))


def pin(spec: BackboneSpec, revision: str | None, root: Path) -> None:
    """Keep the revision that a spec was resolved to, unless one is pinned already, or nothing can move.

    revision: of the built backbone; what is no commit of a hub is not kept.
    """
    if not _may_move(spec) or not _is_commit(revision):
        return
    pins = read_pins(root)
    if spec.location not in pins:
        write_json(root / LOCK, {**pins, spec.location: revision})


def unpin(locations: Iterable[str], root: Path) -> list[str]:
    """Take hub ids out of the table, so that they are resolved anew; gives those that were in it."""
    pins = read_pins(root)
    out = sorted(set(locations) & pins.keys())
    if out:
        write_json(root / LOCK, {name: commit for name, commit in pins.items() if name not in out})
    return out


def _may_move(spec: BackboneSpec) -> bool:
    return spec.source == "hub" and spec.revision is None


def _is_commit(value: object) -> bool:
    return isinstance(value, str) and _COMMIT.fullmatch(value) is not None


def _unusable(path: Path, why: str) -> UserError:
    return UserError(
        f"unusable {path}: {why}; expected an object of hub ids and commits of 40 hex digits: restore it from git, or "
        "delete it to resolve every revision anew"
    )
