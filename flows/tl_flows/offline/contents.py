"""What a bundle holds: MANIFEST.json names every file with its size and sha256, and nothing that it doesn't name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tl_core.errors import FormatError, UserError

FORMAT_VERSION = 1
MANIFEST = "MANIFEST.json"
README = "README.md"
REPOSITORY = "repository.bundle"  # git's own format
FEATURES = "features.arrow"
DVC, HUB, TREE, WEIGHTS = "dvc", "hub", "tree", "weights"  # folders


@dataclass(frozen=True)
class File:
    """size: bytes; sha256: hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Contents:
    """A bundle's MANIFEST.json.

    project: its folder in the repository, `.` for the root; name: for people; versions: of the model that travel;
    moved: weights outside of the repository, as `select.backbones` or a model names them -> their place in the bundle;
    packages: dist -> version of what made it and what holds weights; files: by path in the bundle.
    """

    name: str
    project: str
    commit: str
    champion: str | None
    versions: tuple[str, ...]
    moved: Mapping[str, str]
    packages: Mapping[str, str]
    files: Mapping[str, File]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def text(self) -> str:
        """As MANIFEST.json, with a digest over itself."""
        facts: dict[str, Any] = {
            "format": FORMAT_VERSION, "name": self.name, "project": self.project, "commit": self.commit,
            "champion": self.champion, "versions": list(self.versions), "moved": dict(self.moved),
            "packages": dict(self.packages),
            "files": {path: {"size": one.size, "sha256": one.sha256} for path, one in sorted(self.files.items())},
        }  # fmt: skip
        return json.dumps({**facts, "digest": _digest(facts)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, data: bytes, where: object) -> Contents:
        """The contents in the bytes of a MANIFEST.json; where: the bundle, for messages.

        Raises UserError where it was changed or names a path that leaves the bundle, FormatError on a newer format.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            facts = json.loads(data.decode("utf-8"))
            form, digest = facts.pop("format"), facts.pop("digest")
            if isinstance(form, int) and form > FORMAT_VERSION:
                raise FormatError(f"{where} has format {form}, this tl reads up to {FORMAT_VERSION}; update tl")
            if digest != _digest({"format": form, **facts}):
                raise ValueError("it was changed")
            found = TypeAdapter(Contents).validate_python(facts)
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
            raise UserError(f"{MANIFEST} of {where} is damaged ({_first(error)}); copy the bundle again") from error
        paths = [*found.files, *found.moved.values(), found.project]
        outside = [path for path in paths if not _inside(path)]
        outside += [path for path in found.files if not _known(path)]
        if outside:
            raise UserError(
                f"{where} is refused: it holds {_some(list(dict.fromkeys(outside)))}, which would lie outside of the "
                "project or where nothing of it belongs; nothing was written"
            )
        return found


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\0" not in path and "\\" not in path


def _known(path: str) -> bool:
    top, *rest = PurePosixPath(path).parts
    if top == TREE:  # never git's or DVC's own: both hold commands that they run
        return bool(rest) and not {".git", ".dvc"} & {part.casefold() for part in rest}
    if top == HUB:
        return len(rest) > 1 and rest[0].startswith("models--")
    return path in (README, REPOSITORY, FEATURES) or (top in (DVC, WEIGHTS) and bool(rest))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(repr(name) for name in names[:5]) + more


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
