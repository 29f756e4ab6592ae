"""Validation rows as a model met them for the first time: what new rows are held against, without labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tl_core.types import Task

MOST_HELD = 500  # rows: more would tell less strong drift, and weigh 2 bytes a feature each
PREFIX = "held."

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Held:
    """Up to 500 validation rows in the space of the model's own backbone, and what the model said of them.

    rows: float16 [H, D], each of length 1; said, sure: as `answered` gives them, before the rows were learnt from;
    right: bool [H], whether that was the label (multiclass), else None; groups: int64 [H] as `group_codes` gives them,
    None where each row stands for itself.
    """

    rows: npt.NDArray[np.float16]
    said: Array
    sure: npt.NDArray[np.float32] | None = None
    right: npt.NDArray[np.bool_] | None = None
    groups: Ints | None = None

    @classmethod
    def of(cls, rows: Array, predictions: Array, truth: Array, task: Task, groups: Sequence[str] | None) -> Self:
        """Of rows [H, D] of length 1, decoded predictions [H, C] or [H], and labels as the manifest encodes them."""
        said, sure = answered(predictions, task)
        right = said == truth if task == "multiclass" else None
        return cls(rows.astype(np.float16), said, sure, right, None if groups is None else group_codes(groups))

    def tensors(self) -> dict[str, Array]:
        """All of it by name, for a file."""
        named = {"rows": self.rows, "said": self.said, "sure": self.sure, "right": self.right, "groups": self.groups}
        return {PREFIX + name: np.ascontiguousarray(value) for name, value in named.items() if value is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> Self | None:
        """What `tensors` gave; None where it is not among these. Raises ValueError where its parts don't fit."""
        own = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
        if not own:
            return None
        if not {"rows", "said"} <= own.keys() or len({len(value) for value in own.values()}) != 1:
            raise ValueError("its held-out rows are not whole")
        return cls(**own)


def answered(predictions: Array, task: Task) -> tuple[Array, npt.NDArray[np.float32] | None]:
    """What decoded predictions decide, and how sure they are.

    said: class numbers int64 [N] (multiclass), bool [N, C] (multilabel), or values float32 [N]. sure: float32 [N], the
    probability of the class, or of the least sure of a row's decisions; None for values.
    """
    if task == "regression":
        return predictions.astype(np.float32), None
    if task == "multiclass":
        return predictions.argmax(axis=1).astype(np.int64), predictions.max(axis=1).astype(np.float32)
    return predictions > 0.5, np.maximum(predictions, 1 - predictions).min(axis=1).astype(np.float32)


def group_codes(names: Sequence[str]) -> Ints:
    """Groups as numbers that are the same in every data set, without their names: int64 [N]."""
    of = {name: hashlib.md5(name.encode("utf-8", "replace"), usedforsecurity=False).digest() for name in set(names)}
    return np.array([int.from_bytes(of[name][:8], "little", signed=True) for name in names], np.int64)
