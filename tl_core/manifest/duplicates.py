"""Samples of the same content: contradictions across splits are refused, harmless copies are counted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tl_core.manifest.splits import TEST, VAL
from tl_core.types import SPLITS


def contradictions(
    rows: np.ndarray, contents: np.ndarray, labels: np.ndarray, splits: np.ndarray, name: Callable[[int], str]
) -> dict[int, str]:
    """Reasons by row, for rows whose content has another label in a split that matters more.

    A train row gives way to val and test, a val row to test; test rows always stay.
    rows: int64 [M], manifest rows; contents, labels (codes), splits: by position in rows; name: a row's id.
    """
    reasons: dict[int, str] = {}
    by_content: dict[int, list[int]] = {}
    for i in np.flatnonzero(several(contents, splits) & several(contents, labels)).tolist():
        by_content.setdefault(int(contents[i]), []).append(i)
    for members in by_content.values():
        left = members
        for split in (TEST, VAL):
            first: dict[int, int] = {}  # label -> the first row of this split that has it
            for i in left:
                if splits[i] == split:
                    first.setdefault(int(labels[i]), i)
            for i in left:
                rival = next((j for label, j in first.items() if label != labels[i]), None)
                if rival is not None and splits[i] < split:
                    where = name(int(rows[rival]))
                    reasons[int(rows[i])] = f"same content in the {SPLITS[split]} split with another label ({where})"
            left = [i for i in left if int(rows[i]) not in reasons]
    return reasons


def copies(contents: np.ndarray, labels: np.ndarray, splits: np.ndarray) -> list[str]:
    """Notes that count contents which occur in several splits, or with several labels in one."""
    notes = []
    across = len(np.unique(contents[several(contents, splits)]))
    if across:
        notes.append(f"contents with the same label in several of the data's own splits: {across} (kept)")
    torn = len(np.unique(contents[several(contents, labels)]))
    if torn:
        notes.append(f"contents with several labels in one split: {torn} (kept)")
    return notes


def several(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """bool [N]: whether the row's key occurs with more than one value."""
    if not len(keys):
        return np.zeros(0, bool)
    pairs = np.unique(np.stack([keys.astype(np.int64), values.astype(np.int64)], axis=1), axis=0)
    values_of_key = np.bincount(pairs[:, 0], minlength=int(keys.max()) + 1)
    found: np.ndarray = values_of_key[keys] > 1
    return found
