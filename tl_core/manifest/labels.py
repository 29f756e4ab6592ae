"""What the labels ask for: one class, several labels, or a number."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tl_core.config import DataConfig
from tl_core.manifest.columns import MULTILABEL_NAMES
from tl_core.manifest.listing import Listing
from tl_core.types import Targets, Task

NO_LABEL = "no label"
MANY_VALUES = 20  # numbers with more distinct values than this, most of them seen once or so, are measurements
REGRESSION_BINS = 10
LARGEST = float(np.finfo(np.float32).max)  # targets are float32


@dataclass(frozen=True)
class Labels:
    """The rows' labels in their final form.

    text: string [N], as written (multi-label: sorted, each once, "" for none), null where missing;
    codes: int64 [N] into `distinct`, -1 where missing; reasons: by code, why a label is unusable.
    """

    task: Task
    text: pa.Array
    codes: np.ndarray
    distinct: tuple[str, ...]
    reasons: dict[int, str]
    separator: str
    note: str | None

    def parts(self, code: int) -> list[str]:
        """The class names of a label."""
        return split_label(self.distinct[code], self.task, self.separator)

    def classes(self, codes: np.ndarray) -> tuple[str, ...]:
        """Names of the classes that occur among these labels, in index order; none for regression."""
        if self.task == "regression":
            return ()
        return sort_classes({name for code in np.unique(codes) if code >= 0 for name in self.parts(code)})


def read_labels(listing: Listing, data: DataConfig) -> Labels:
    """Decide on the task and bring all labels into their final form."""
    encoded = listing.rows["label"].combine_chunks().dictionary_encode()
    raw: list[str] = encoded.dictionary.to_pylist()
    task, guessed = _task(raw, encoded.indices, listing, data)
    written = [_canonical(label, task, data.separator) for label in raw]
    texts: list[str] = sorted(set(written) | ({""} if task == "multilabel" else set()))
    place = {text: code for code, text in enumerate(texts)}
    recode = np.array([place[text] for text in written] + [place.get("", -1)], np.int64)  # last: rows without label
    codes = recode[pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)]
    text = pa.array(texts, pa.string()).take(pa.array(codes, mask=codes < 0))
    reasons = {}
    if task == "regression":
        reasons = {place[t]: f"label '{t}' is no finite number" for t in texts if parse_number(t) is None}
    note = f"task {task} (guessed; data.task sets it)" if guessed else None
    return Labels(task, text, codes, tuple(texts), reasons, data.separator, note)


def split_label(label: str, task: Task, separator: str) -> list[str]:
    """The class names in a label: several for multi-label, itself otherwise."""
    if task != "multilabel":
        return [label]
    return [name for part in label.split(separator) if (name := part.strip())]


def parse_number(text: str) -> float | None:
    """A finite number that float32 can hold, or None."""
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return value if abs(value) <= LARGEST else None


def sort_classes(names: set[str]) -> tuple[str, ...]:
    """Class names in index order: by value where all are integers, else by code point."""
    if all(re.fullmatch(r"[+-]?\d+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def encode_labels(labels: Sequence[str], targets: Targets, separator: str) -> np.ndarray:
    """Labels as targets: int64 [N] (multiclass), float32 [N, C] of 0 and 1 (multilabel), float32 [N] (regression).

    Raises ValueError on a label that is outside the classes, or no finite number.
    """
    if targets.task == "regression":
        numbers = [parse_number(label) for label in labels]
        if None in numbers:
            raise ValueError(f"label {labels[numbers.index(None)]!r} is no finite number")
        return np.array(numbers, np.float32)
    place = {name: i for i, name in enumerate(targets.classes)}
    parts = [split_label(label, targets.task, separator) for label in labels]
    unknown = sorted({name for names in parts for name in names} - place.keys())
    if unknown:
        raise ValueError(f"labels outside the classes: {', '.join(unknown[:5])}")
    if targets.task == "multiclass":
        return np.array([place[name] for (name,) in parts], np.int64)
    hot = np.zeros((len(labels), len(place)), np.float32)
    for row, names in enumerate(parts):
        hot[row, [place[name] for name in names]] = 1
    return hot


def strata(labels: Labels, usable: np.ndarray) -> np.ndarray:
    """int64 [N]: what a split should keep the shares of.

    Classes; for multi-label each row's rarest label; for regression ten bins of equally many rows.
    """
    if labels.task == "multiclass":
        return labels.codes
    counts = np.bincount(labels.codes[usable], minlength=len(labels.distinct))
    if labels.task == "regression":
        values = np.array([parse_number(t) or 0.0 for t in labels.distinct])
        order = np.argsort(values, kind="stable")
        bins = max(1, min(REGRESSION_BINS, int(counts.sum()) // REGRESSION_BINS))
        rank = np.cumsum(counts[order]) - counts[order] / 2  # the middle rank of the rows with this value
        of_code = np.empty(len(values), np.int64)
        of_code[order] = np.minimum((rank * bins / max(1, counts.sum())).astype(np.int64), bins - 1)
        binned: np.ndarray = of_code[labels.codes]
        return binned
    parts = [labels.parts(code) for code in range(len(labels.distinct))]
    names = sorted({name for part in parts for name in part})
    place = {name: i for i, name in enumerate(names)}
    totals = np.zeros(len(names) + 1, np.int64)
    for part, count in zip(parts, counts):
        for name in part:
            totals[place[name]] += count
    rarest = [min((place[n] for n in part), key=lambda i: (totals[i], i), default=len(names)) for part in parts]
    found: np.ndarray = np.array(rarest, np.int64)[labels.codes]
    return found


def _task(raw: Sequence[str], codes: pa.Array, listing: Listing, data: DataConfig) -> tuple[Task, bool]:
    """(task, whether it was guessed)."""
    if data.task != "auto":
        return data.task, False
    if listing.labelled_by is None:
        return "multiclass", False  # folders name classes
    if (
        listing.lists
        or listing.labelled_by.strip().lower() in MULTILABEL_NAMES
        or any(data.separator in t for t in raw)
    ):
        return "multilabel", True
    numbers = [_number(text) for text in raw]
    if numbers and all(number is not None for number in numbers):
        fractions = any(n is not None and math.isfinite(n) and not n.is_integer() for n in numbers)
        rows = len(codes) - codes.null_count
        if fractions or (len(raw) > MANY_VALUES and len(raw) > rows / 2):
            return "regression", True
    return "multiclass", True


def _number(text: str) -> float | None:
    """A number, also one that is not finite, or None."""
    try:
        return float(text) if "_" not in text else None
    except ValueError:
        return None


def _canonical(label: str, task: Task, separator: str) -> str:
    if task != "multilabel":
        return label
    return separator.join(sorted(set(split_label(label, task, separator))))
