"""Spaces of the feature store: the folder of one key space and the facts that every row in it shares."""

from __future__ import annotations

import json
import math
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_core.errors import FormatError

FORMAT_VERSION = 2
DTYPES = ("<f2", "<f4")
FACTS = "space.json"
_FORMER = re.compile(r"[0-9a-f]{16}-[-A-Za-z0-9_.]+-(float32|bfloat16)")


@dataclass(frozen=True)
class Space:
    """One key space of the store: rows in it are told apart by sample digest alone.

    fingerprint: the backbone's; cut: the segment boundary that rows were taken at, `end` for the embedding;
    precision: the class that they were computed in.
    """

    fingerprint: str
    cut: str
    precision: str

    @property
    def name(self) -> str:
        """The name of its folder. The full fingerprint stands in its space.json."""
        for part in (self.fingerprint, self.cut, self.precision):
            if not re.fullmatch(r"[-A-Za-z0-9_.]+", part):
                raise ValueError(f"{part!r} can't be part of a folder's name; letters, digits, -, _ and . can")
        return f"{self.fingerprint[:16]}-{self.cut}-{self.precision}"

    def folder(self, root: Path) -> Path:
        """Where the space lies in the store."""
        return home(root) / self.name


@dataclass(frozen=True)
class SpaceFacts:
    """What space.json holds: the full key, and what every row of the space has in common.

    shape: of a row, () where rows are ragged; dtype: of a row, or of the floats in a ragged one.
    """

    space: Space
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    ragged: bool = False

    @property
    def row_bytes(self) -> int | None:
        """Bytes of one row, None where rows are ragged."""
        return None if self.ragged else math.prod(self.shape) * self.dtype.itemsize


def home(root: Path) -> Path:
    """The folder of this format in a store; other formats have their own, so that no tl stumbles over another's."""
    return root / f"v{FORMAT_VERSION}"


def space_folders(root: Path) -> list[Path]:
    """The folders of all spaces, by name."""
    return sorted(path for path in home(root).glob("*-*-*") if path.is_dir())


def former_folders(root: Path) -> list[Path]:
    """The folders of spaces of format 1, which this tl does not read, by name.

    They lay beside whatever else the user keeps there, and gc deletes them: nothing but their full names will do.
    """
    return sorted(path for path in root.glob("*-*-*") if _FORMER.fullmatch(path.name) and path.is_dir())


def open_space(folder: Path, space: Space | None = None) -> SpaceFacts | None:
    """The facts of the space in a folder, None where there is none.

    Raises FormatError where space.json is damaged, of a newer format, or (space given) of another key.
    """
    path = folder / FACTS
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        facts = json.loads(text)
        version = int(facts["format_version"])
        if version > FORMAT_VERSION:
            raise FormatError(
                f"{path} is of format version {version}, this tl reads up to {FORMAT_VERSION}; "
                "upgrade tl, or set store.path to another folder"
            )
        found = facts_from(facts)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise FormatError(f"{path} is damaged; delete {folder} and its features are computed again") from error
    if space is not None and found.space != space:
        raise FormatError(f"{folder} holds features of {found.space}, not of {space}; set store.path to another folder")
    return found


def create_space(root: Path, wanted: SpaceFacts) -> Path:
    """Make the space's folder, where it is not there yet, and return it.

    Raises ValueError where it exists with rows of another shape or dtype, OSError where it can't be written.
    """
    folder = wanted.space.folder(root)
    found = open_space(folder, wanted.space)
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / FACTS, json.dumps(facts_as_json(wanted), indent=2, sort_keys=True).encode())
        found = open_space(folder, wanted.space)  # another process may have come first, or just after
    if found != wanted:
        raise ValueError(f"{folder} holds rows {found}, not {wanted}")
    return folder


def facts_as_json(facts: SpaceFacts) -> dict[str, Any]:
    """Facts as JSON takes them."""
    rows: dict[str, Any] = {"ragged": True} if facts.ragged else {"shape": list(facts.shape)}
    return {
        "format_version": FORMAT_VERSION,
        "fingerprint": facts.space.fingerprint,
        "cut": facts.space.cut,
        "precision": facts.space.precision,
        "dtype": facts.dtype.str,
        **rows,
    }


def facts_from(value: dict[str, Any]) -> SpaceFacts:
    """The facts in parsed JSON. Raises ValueError, KeyError or TypeError where they can't be."""
    space = Space(str(value["fingerprint"]), str(value["cut"]), str(value["precision"]))
    if not space.name:  # which raises where its parts can be no folder's name
        raise ValueError(f"no name for {space}")
    ragged = bool(value.get("ragged", False))
    shape = () if ragged else tuple(int(n) for n in value["shape"])
    facts = SpaceFacts(space, shape, np.dtype(str(value["dtype"])), ragged)
    if facts.dtype.str not in DTYPES or any(n <= 0 for n in shape):
        raise ValueError(f"rows of {facts.dtype} {facts.shape}")
    return facts


def sync_folder(folder: Path) -> None:
    """Make the folder's list of files durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, on the disk when it returns."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)
