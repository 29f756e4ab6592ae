"""Versions of data, test sets and answers of two models, for the gate's tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa

from tl_core.digests import text_digest
from tl_core.gate import Asked, Candidate, Match, TestSet
from tl_core.manifest import Manifest
from tl_core.manifest.labels import sort_classes, split_label
from tl_core.manifest.listing import ATTRIBUTE
from tl_core.manifest.table import SCHEMA, version_of
from tl_core.types import Targets, Task

NOBODY = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Row:
    """A line of data: a text, its label, its split, and why it can't be used."""

    text: str
    label: str
    split: str = "train"
    group: str | None = None
    reason: str | None = None


def rows(count: int, split: str = "test", labels: Sequence[str] = ("a", "b"), name: str = "text") -> list[Row]:
    return [Row(f"{name} {i}", labels[i % len(labels)], split) for i in range(count)]


def relabelled(some: Sequence[Row], label: str) -> list[Row]:
    return [replace(row, label=label) for row in some]


def manifest(
    lines: Sequence[Row], task: Task = "multiclass", attributes: Mapping[str, Sequence[str]] | None = None
) -> Manifest:
    """The lines as a manifest of texts."""
    ids = [f"data.csv:{i}" for i in range(len(lines))]
    texts = [line.text for line in lines]
    columns: list[list[Any]] = [
        ids, [text_digest(text) for text in texts], texts, [True] * len(lines), [line.label for line in lines],
        [line.split for line in lines], [line.group for line in lines], [line.reason for line in lines],
    ]  # fmt: skip
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
    for name, values in (attributes or {}).items():
        table = table.append_column(f"{ATTRIBUTE}{name}", pa.array(list(values), pa.string()))
    names = {part for line in lines for part in split_label(line.label, task, "|")} if task != "regression" else set()
    return Manifest(table, "words", Targets(task, sort_classes(names)), "", (), version_of(table))


def digests(lines: Sequence[Row]) -> set[str]:
    return {text_digest(line.text) for line in lines}


def answers(truth: np.ndarray, wrong: np.ndarray, classes: int, sure: float = 0.9) -> np.ndarray:
    """Probabilities [N, C] that are right but where told."""
    said = np.where(wrong, (truth + 1) % classes, truth)
    found = np.full((len(truth), classes), (1 - sure) / (classes - 1))
    found[np.arange(len(truth)), said] = sure
    return found


@dataclass
class Duel:
    """Two models on the same test rows of five classes, which err together on the hard ones."""

    count: int = 1000
    first: float = 0.2
    second: float = 0.2
    seed: int = 0
    luck: float = 0.3

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.targets = Targets("multiclass", tuple("abcde"))
        self.truth = rng.integers(5, size=self.count)
        hard = rng.normal(size=self.count)
        scores = [(hard + self.luck * rng.normal(size=self.count)) / np.hypot(1, self.luck) for _ in range(2)]
        limits = [NormalDist().inv_cdf(1 - errors) for errors in (self.first, self.second)]
        self.wrong = [score > limit for score, limit in zip(scores, limits)]

    def asked(self, **changes: Any) -> Asked:
        nobody = np.zeros(self.count, bool)
        asked = Asked(
            self.targets, np.arange(self.count), self.truth, None, {}, np.ones(self.count, bool), nobody, nobody,
            nobody, Match(np.arange(self.count), NOBODY, NOBODY, (), (), ()),
        )  # fmt: skip
        return replace(asked, **changes)

    def models(self, sure: float | None = None) -> tuple[Candidate, Candidate]:
        """Champion and challenger; as sure as they are right where not told."""
        said = [answers(self.truth, wrong, 5, 1 - wrong.mean() if sure is None else sure) for wrong in self.wrong]
        return tuple(Candidate(n, d, self.targets.classes, p) for n, d, p in zip(("v1", "v2"), "xy", said))  # type: ignore[return-value]

    @property
    def test_set(self) -> TestSet:
        lines = ((text_digest(str(i)), self.targets.classes[label]) for i, label in enumerate(self.truth.tolist()))
        return TestSet(1, "multiclass", self.targets.classes, tuple(sorted(lines)))
