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

FORMAT_VERSION = 1
DTYPES = ("<f2", "<f4")
_FACTS = "space.json"


@dataclass(frozen=True)
class Space:
    """One key space of the store: rows in it are told apart by sample digest alone.

    fingerprint: the backbone's; cut: the segment boundary that rows were taken at, `end` for the embedding;
    precision: the class that they were computed in.
    """

    fingerprint: str
    cut: str
    precision: str

    def folder(self, root: Path) -> Path:
        """Where the space lies in the store. The full fingerprint stands in its space.json."""
        for name in (self.fingerprint, self.cut, self.precision):
            if not re.fullmatch(r"[-A-Za-z0-9_.]+", name):
                raise ValueError(f"{name!r} can't be part of a folder's name; letters, digits, -, _ and . can")
        return root / f"{self.fingerprint[:16]}-{self.cut}-{self.precision}"


@dataclass(frozen=True)
class SpaceFacts:
    """What space.json holds: the full key, and the shape and dtype of every row."""

    space: Space
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_space(folder: Path, space: Space | None = None) -> SpaceFacts | None:
    """The facts of the space in a folder, None where there is none.

    Raises FormatError where space.json is damaged, of a newer format, or (space given) of another key.
    """
    path = folder / _FACTS
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
        found = SpaceFacts(
            Space(str(facts["fingerprint"]), str(facts["cut"]), str(facts["precision"])),
            tuple(int(n) for n in facts["shape"]),
            np.dtype(str(facts["dtype"])),
        )
        if found.dtype.str not in DTYPES or found.row_bytes <= 0:
            raise ValueError(f"rows of {found.dtype} {found.shape}")
    except (ValueError, KeyError, TypeError) as error:
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
        _write_durably(
            folder / _FACTS,
            {
                "format_version": FORMAT_VERSION,
                "fingerprint": wanted.space.fingerprint,
                "cut": wanted.space.cut,
                "precision": wanted.space.precision,
                "shape": list(wanted.shape),
                "dtype": wanted.dtype.str,
            },
        )
        found = open_space(folder, wanted.space)  # another process may have come first, or just after
    if found != wanted:
        raise ValueError(f"{folder} holds rows {found}, not {wanted}")
    return folder


def sync_folder(folder: Path) -> None:
    """Make the folder's list of files durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_durably(path: Path, value: dict[str, Any]) -> None:
    """Write JSON whole or not at all, on the disk when it returns: rows are durable only if this is."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with part.open("w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=2, sort_keys=True)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)
