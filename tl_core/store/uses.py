"""Uses: which rows a version of the data took from which space, and when it last did; gc goes by them.

A file a data version and space holds the sorted keys; its modification time is the time of the last use.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tl_core.store.shards import keys_of
from tl_core.store.spaces import Space, home, write_durably

_SUFFIX = ".keys"


@dataclass
class VersionUse:
    """What one version of the data used. folder: where that is written; spaces: files by space name."""

    folder: Path
    last: float = 0.0  # seconds since 1970
    spaces: dict[str, Path] = field(default_factory=dict)


def mark_used(root: Path, space: Space, data_version: str, digests: Sequence[str]) -> None:
    """Remember that the version used these rows, beside those it used before; in vain where the store is read-only."""
    path = _uses(root) / _folder_name(data_version) / f"{space.name}{_SUFFIX}"
    keys = np.unique(keys_of(digests))
    with suppress(OSError):
        known = used_keys(path)
        merged = keys if not len(known) else np.union1d(known, keys)
        if len(known) and len(merged) == len(known):
            os.utime(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, merged.tobytes())


def used_keys(path: Path) -> np.ndarray:
    """The keys in a file of uses, S16 [N], sorted; none where it is not there."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    return np.frombuffer(data[: len(data) // 16 * 16], "S16")


def version_uses(root: Path) -> list[VersionUse]:
    """What each version of the data used, the version used last first."""
    versions = []
    for folder in _uses(root).glob("*"):
        use = VersionUse(folder)
        for path in folder.glob(f"*{_SUFFIX}"):
            with suppress(FileNotFoundError):
                use.last = max(use.last, path.stat().st_mtime)
                use.spaces[path.name.removesuffix(_SUFFIX)] = path
        versions.append(use)
    return sorted(versions, key=lambda use: (-use.last, use.folder.name))


def left_parts(root: Path, age: float) -> list[Path]:
    """Unfinished files that killed processes left so many seconds ago."""
    left = []
    for path in _uses(root).glob("*/.*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > age:
                left.append(path)
    return left


def _uses(root: Path) -> Path:
    return home(root) / "uses"


def _folder_name(data_version: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_][-A-Za-z0-9_.]{0,99}", data_version):
        return data_version
    return hashlib.md5(data_version.encode(), usedforsecurity=False).hexdigest()
