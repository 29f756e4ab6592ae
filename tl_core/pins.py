"""What a run's backbones are, to the byte: the commit of a hub's repository and the digest of the weights.

`backbones.lock` lies beside params.yaml (outside of a project, among the run's outputs) and belongs into git: a hub's
repository may change, and so may a folder with weights, but features, heads and bundles hold for the weights that they
were made with. A backbone whose digest its plugin states, and verifies whenever it is opened, needs no entry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tl_core.errors import FormatError, UserError
from tl_core.names import split_view
from tl_core.types import BackboneSpec
from tl_core.workspace import BACKBONES_LOCK, write_json

LOCK = BACKBONES_LOCK
FORMAT_VERSION = 2  # 1 was the table of revisions alone, without a format
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHOWN = 12  # digits of a digest in messages


@dataclass(frozen=True)
class Pins:
    """revisions: hub id -> commit; weights: backbone as it is asked for, without a view -> sha256 of its weights."""

    revisions: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, root: Path) -> Pins:
        """The pins under root, none where it has no such file. Raises UserError where the file can't be used."""
        path = root / LOCK
        try:
            return cls.from_text(path.read_text(encoding="utf-8"), path)
        except FileNotFoundError:
            return cls()
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(path, str(error).splitlines()[0]) from error

    @classmethod
    def from_text(cls, text: str, path: Path) -> Pins:
        """The pins in a file's text; path: named in faults. Raises UserError, and FormatError on a newer format."""
        try:
            table = json.loads(text)
        except ValueError as error:
            raise _unusable(path, str(error).splitlines()[0]) from error
        if not isinstance(table, dict):
            raise _unusable(path, f"it holds a {type(table).__name__}")
        if "format" not in table:
            table = {"format": 1, "revisions": table}
        number = table["format"]
        if type(number) is int and number > FORMAT_VERSION:
            raise FormatError(f"{path} has format {number}, this tl reads up to {FORMAT_VERSION}; update tl")
        revisions, weights = table.get("revisions", {}), table.get("weights", {})
        wrong = [] if type(number) is int and number > 0 else [f"format is {number!r}"]
        wrong += _faults("revisions", revisions, _COMMIT) + _faults("weights", weights, _DIGEST)
        if wrong:
            raise _unusable(path, "; ".join(wrong))
        return cls(revisions, weights)

    def keep(self, root: Path) -> None:
        """Write them under root, whole or not at all."""
        table = {"format": FORMAT_VERSION, "revisions": dict(self.revisions), "weights": dict(self.weights)}
        write_json(root / LOCK, table)


def read_pins(root: Path) -> dict[str, str]:
    """Hub id -> commit, as far as they are pinned under root. Raises UserError where the file can't be used."""
    return dict(Pins.at(root).revisions)


def pinned(spec: BackboneSpec, root: Path) -> BackboneSpec:
    """The spec at the commit that is pinned under root; the spec itself where none is, or it names its own revision."""
    return at_commit(spec, read_pins(root).get(spec.location)) if _may_move(spec) else spec


def at_commit(spec: BackboneSpec, commit: str | None) -> BackboneSpec:
    """The spec at a commit of its hub repository; itself without a commit, or where it names its own revision."""
    if commit is None or not _may_move(spec):
        return spec
    return replace(spec, revision=commit, base=spec.base and replace(spec.base, revision=commit))


def pin(spec: BackboneSpec, request: str, facts: Mapping[str, Any], root: Path) -> None:
    """Keep the revision and the weights' digest of a backbone that was opened, and refuse other weights than pinned.

    request: as it was asked for; facts: of the built backbone, with its `revision` (what is no commit of a hub is not
    kept) and the digest of its `weights`. Raises UserError where other weights are pinned.
    """
    pins = Pins.at(root)
    check_weights(request, facts, pins, root)
    new, revision = pins, facts["revision"]
    if _may_move(spec) and _matches(revision, _COMMIT) and spec.location not in pins.revisions:
        new = replace(new, revisions={**pins.revisions, spec.location: revision})
    name = split_view(request)[0]
    # where the plugin states a digest, it has been verified already
    if (spec.base or spec).sha256 is None and _matches(facts["weights"], _DIGEST) and name not in pins.weights:
        new = replace(new, weights={**pins.weights, name: facts["weights"]})
    if new != pins:
        new.keep(root)


def check_weights(request: str, facts: Mapping[str, Any], pins: Pins, root: Path) -> None:
    """Raises UserError where a backbone that was opened has other weights than those that are pinned under root.

    request: as it was asked for; facts: with the digest of its `weights`.
    """
    name = split_view(request)[0]
    expected, found = pins.weights.get(name), facts["weights"]
    if expected not in (None, found):
        raise UserError(
            f"the weights of {name} have changed: {root / LOCK} pins sha256 {expected[:_SHOWN]}, here are "
            f"{found[:_SHOWN]}; put the pinned ones back, or accept these: tl backbones --unpin {name}"
        )


def unpin(names: Collection[str], root: Path) -> Pins:
    """Take hub ids and backbones out, so that they are resolved anew; gives what was pinned of them."""
    pins = Pins.at(root)
    out = Pins(*({k: v for k, v in table.items() if k in names} for table in (pins.revisions, pins.weights)))
    if out != Pins():
        kept = ({k: v for k, v in table.items() if k not in names} for table in (pins.revisions, pins.weights))
        Pins(*kept).keep(root)
    return out


def _may_move(spec: BackboneSpec) -> bool:
    return spec.source == "hub" and spec.revision is None


def _matches(value: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _faults(what: str, table: object, pattern: re.Pattern[str]) -> list[str]:
    if not isinstance(table, dict):
        return [f"{what} is a {type(table).__name__}"]
    return [f"{name!r} has {value!r}" for name, value in table.items() if not _matches(value, pattern)]


def _unusable(path: Path, why: str) -> UserError:
    return UserError(
        f"unusable {path}: {why}; expected an object with revisions (hub ids and commits of 40 hex digits) and weights "
        "(backbones and sha256s of 64): restore it from git, or delete it to pin anew what the next run finds"
    )
