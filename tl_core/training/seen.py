"""Which rows the weights of a model have seen, kept beside them: no model that starts there is tested on such rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tl_core.errors import FormatError, UserError
from tl_core.workspace import write_bytes

if TYPE_CHECKING:
    from tl_core.manifest import Manifest

FORMAT_VERSION = 1
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Seen:
    """Rows by content, and their groups where the data have such, each as the first 64 bits of a digest, ascending.

    learned: rows that moved weights; judged: rows that only chose among them (epochs, strengths, temperatures). Both
    hold what the models have seen that these weights started from, however long ago.
    """

    learned: Keys
    judged: Keys

    @classmethod
    def of(cls, manifest: Manifest, learned: np.ndarray, judged: np.ndarray) -> Self:
        """What a training on manifest rows sees, int64 each."""
        return cls(_all_keys(manifest, learned), _all_keys(manifest, judged))

    def joined(self, other: Seen) -> Seen:
        """What both have seen."""
        return Seen(np.union1d(self.learned, other.learned), np.union1d(self.judged, other.judged))

    def taught(self, manifest: Manifest, rows: np.ndarray) -> npt.NDArray[np.bool_]:
        """Which manifest rows weights were moved by, or by another row of their group: bool [N]."""
        return _known(self.learned, manifest, rows)

    def met(self, manifest: Manifest, rows: np.ndarray) -> npt.NDArray[np.bool_]:
        """Which manifest rows, or others of their group, had any part in these weights: bool [N]."""
        return self.taught(manifest, rows) | _known(self.judged, manifest, rows)

    def holds(self, manifest: Manifest, rows: np.ndarray) -> npt.NDArray[np.bool_]:
        """Which manifest rows had any part in these weights themselves, whatever their group: bool [N]."""
        found: npt.NDArray[np.bool_] = np.isin(_contents(manifest, rows), np.union1d(self.learned, self.judged))
        return found

    def save(self, path: Path) -> None:
        """Write it as safetensors; the same rows give the same bytes."""
        facts = json.dumps({"format": FORMAT_VERSION})
        write_bytes(path, save({"judged": self.judged, "learned": self.learned}, {"seen": facts}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it. Raises UserError where it can't be read, FormatError on a newer format."""
        try:
            with safe_open(path, "numpy") as opened:
                found = int(json.loads((opened.metadata() or {})["seen"])["format"])
                if found > FORMAT_VERSION:
                    raise FormatError(f"{path} has format {found}, this tl reads up to {FORMAT_VERSION}; update tl")
                return cls(opened.get_tensor("learned"), opened.get_tensor("judged"))
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"unreadable {path}: {str(error).splitlines()[0]}; train again or fetch it again"
            ) from error


def _all_keys(manifest: Manifest, rows: np.ndarray) -> Keys:
    contents, groups = _keys(manifest, rows)
    return np.unique(contents if groups is None else np.concatenate([contents, groups]))


def _known(keys: Keys, manifest: Manifest, rows: np.ndarray) -> npt.NDArray[np.bool_]:
    contents, groups = _keys(manifest, rows)
    known: npt.NDArray[np.bool_] = np.isin(contents, keys)
    return known if groups is None else known | np.isin(groups, keys)


def _keys(manifest: Manifest, rows: np.ndarray) -> tuple[Keys, Keys | None]:
    """Of the contents of rows, and of their groups; None where the data have no groups."""
    groups, contents = manifest.groups(rows), _contents(manifest, rows)
    if groups is None:
        return contents, None
    named = [hashlib.sha256(f"group {group}".encode()).digest()[:8] for group in groups]
    return contents, np.array([int.from_bytes(name, "big") for name in named], np.uint64)


def _contents(manifest: Manifest, rows: np.ndarray) -> Keys:
    return np.array([int(digest[:16], 16) for digest in manifest.digests(rows)], np.uint64)
