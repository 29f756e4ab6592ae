"""What changed between two versions of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tl_core.manifest.table import Manifest

EXAMPLES = 5


@dataclass(frozen=True)
class Changes:
    """Counts of rows by what happened to them, and ids of the first few by kind.

    modified: the same id with another content; relabelled: the same content with another label.
    """

    added: int
    removed: int
    modified: int
    relabelled: int
    unchanged: int
    examples: dict[str, list[str]] = field(default_factory=dict)


def compare(old: Manifest | None, new: Manifest) -> Changes:
    """What happened between two versions; everything is added where there is no old one.

    Files are matched by id (their path); rows of tables by content first, because their ids shift.
    """
    if old is None:
        return Changes(
            len(new), 0, 0, 0, 0, {"added": _ids(new, np.arange(min(len(new), EXAMPLES)))} if len(new) else {}
        )
    inline = all(bool(pc.all(m.table["inline"]).as_py()) for m in (old, new) if len(m))
    passes: Sequence[tuple[str, tuple[str, ...]]] = (
        ("unchanged", ("digest", "label") if inline else ("id", "digest", "label")),
        ("relabelled", ("digest",) if inline else ("id", "digest")),
        ("modified", ("id",)),
    )
    codes = {name: _codes(old, new, name) for name in ("id", "digest", "label")}
    left, right = np.arange(len(old)), np.arange(len(new))
    counts: dict[str, int] = {}
    examples: dict[str, list[str]] = {}
    for kind, columns in passes:
        keys = _keys([codes[name] for name in columns])
        a, b = _match(keys[left], keys[len(old) + right])
        counts[kind] = len(a)
        if kind != "unchanged" and len(b):
            examples[kind] = _ids(new, np.sort(right[b])[:EXAMPLES])
        left, right = np.delete(left, a), np.delete(right, b)
    if len(right):
        examples["added"] = _ids(new, right[:EXAMPLES])
    if len(left):
        examples["removed"] = _ids(old, left[:EXAMPLES])
    return Changes(added=len(right), removed=len(left), examples=examples, **counts)


def _codes(old: Manifest, new: Manifest, column: str) -> np.ndarray:
    """int64 [old + new]: equal where the values are equal; -1 for null."""
    both = pa.chunked_array([*old.table[column].chunks, *new.table[column].chunks], pa.string()).combine_chunks()
    indices = both.dictionary_encode().indices
    codes: np.ndarray = pc.fill_null(indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _keys(columns: Sequence[np.ndarray]) -> np.ndarray:
    """One int64 key [N] for the values of several columns together."""
    keys = columns[0]
    for column in columns[1:]:
        _, keys = np.unique(keys * (column.max(initial=0) + 2) + column, return_inverse=True)
    return keys


def _match(old: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of rows with equal keys; the first of a key with the first, the second with the second."""
    span = max(len(old), len(new)) + 1
    _, a, b = np.intersect1d(
        old * span + _occurrence(old), new * span + _occurrence(new), assume_unique=True, return_indices=True
    )
    return a, b


def _occurrence(keys: np.ndarray) -> np.ndarray:
    """How many earlier rows have the row's key."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.r_[True, ordered[1:] != ordered[:-1]] if len(keys) else np.zeros(0, bool)
    position = np.arange(len(keys))
    found = np.empty(len(keys), np.int64)
    found[order] = position - np.maximum.accumulate(np.where(starts, position, 0))
    return found


def _ids(manifest: Manifest, rows: np.ndarray) -> list[str]:
    ids: list[str] = manifest.table["id"].take(pa.array(rows, pa.int64())).to_pylist()
    return ids
