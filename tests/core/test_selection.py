"""Samples of the training rows for the ranking: whole ones, and growing ones that begin with each other."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from tl_core.selection.sample import nested_sample, stratified_sample
from tl_core.types import Targets, Task


@dataclass
class Rows:
    """The part of a manifest that sampling reads: every second row is a training row."""

    labels: np.ndarray
    task: Task = "multiclass"
    names: list[str] | None = None
    of_groups: list[str] | None = None

    @property
    def targets(self) -> Targets:
        return Targets(self.task)

    def rows(self, split: str | None = None) -> np.ndarray:
        assert split == "train"
        return 2 * np.arange(len(self.labels))

    def digests(self, rows: np.ndarray) -> list[str]:
        return [self.names[row // 2] if self.names else f"digest {row}" for row in rows]

    def target_array(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.labels[rows // 2])

    def groups(self, rows: np.ndarray) -> list[str] | None:
        return None if self.of_groups is None else [self.of_groups[row // 2] for row in rows]


def whole(rows: Rows, n: int, seed: int = 0) -> np.ndarray:
    return stratified_sample(cast(Any, rows), n, seed)


def growing(rows: Rows, n: int, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    return nested_sample(cast(Any, rows), n, seed)


def test_sample_is_stratified_and_in_order() -> None:
    rows = Rows(np.repeat([0, 1, 2], [600, 300, 100]))
    taken = whole(rows, 100)
    assert Counter(rows.target_array(taken).tolist()) == {0: 60, 1: 30, 2: 10}
    assert taken.tolist() == sorted(set(taken.tolist()))
    assert (taken % 2 == 0).all()


def test_sample_keeps_two_rows_of_a_rare_class() -> None:
    rows = Rows(np.repeat([0, 1, 2, 3], [5000, 3, 2, 1]))
    taken = whole(rows, 50)
    assert Counter(rows.target_array(taken).tolist()) == {0: 45, 1: 2, 2: 2, 3: 1}


@pytest.mark.parametrize("n", [20, 37, 150, 299])
def test_sample_has_the_size_asked_for(n: int) -> None:
    labels = np.random.default_rng(n).integers(0, 40, 300)
    assert len(whole(Rows(labels), n)) == n
    assert len(whole(Rows(labels, "regression"), n)) == n
    assert len(whole(Rows(np.eye(40)[labels], "multilabel"), n)) == n


def test_small_data_are_taken_whole() -> None:
    assert whole(Rows(np.zeros(10, np.int64)), 20).tolist() == list(range(0, 20, 2))


def test_sample_follows_the_seed_and_survives_growth() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 2000)
    names = [f"file {i}" for i in range(2000)]
    first = whole(Rows(labels, names=names), 200)
    assert first.tolist() == whole(Rows(labels, names=names), 200).tolist()
    assert first.tolist() != whole(Rows(labels, names=names), 200, seed=1).tolist()
    grown = whole(Rows(np.append(labels, [0] * 20), names=[*names, *map(str, range(20))]), 200)
    assert len(set(first) & set(grown)) > 180


@pytest.mark.parametrize(
    ("rows", "n", "sizes"),
    [
        (5000, 1000, [125, 250, 500, 1000]),
        (5000, 1155, [144, 288, 577, 1155]),
        (5000, 300, [150, 300]),
        (5000, 239, [239]),
        (63, 1000, [63]),
        (700, 1000, [175, 350, 700]),
        (5000, 4000, [125, 250, 500, 1000, 2000, 4000]),
    ],
)
def test_rounds_double_up_to_the_whole(rows: int, n: int, sizes: list[int]) -> None:
    taken, found = growing(Rows(np.arange(rows) % 3), n)
    assert found == sizes
    assert len(taken) == len(set(taken.tolist())) == sizes[-1]
    assert (taken % 2 == 0).all()


def test_each_beginning_is_stratified_and_holds_four_rows_of_each_class() -> None:
    rows = Rows(np.repeat([0, 1, 2, 3], [5000, 300, 5, 1]))
    taken, sizes = growing(rows, 1000)
    for size in sizes:
        counts = Counter(rows.target_array(taken[:size]).tolist())
        assert (counts[2], counts[3]) == (4, 1)
        assert counts[0] / size == pytest.approx(5000 / 5306, abs=0.04)
        assert counts[1] / size == pytest.approx(300 / 5306, abs=0.04)


def test_the_first_round_has_room_for_every_class() -> None:
    taken, sizes = growing(Rows(np.arange(7700) % 77), 1000)
    assert sizes == [500, 1000]
    assert min(Counter((taken[:500] // 2 % 77).tolist()).values()) >= 4


def test_more_classes_than_rows() -> None:
    """All classes once before any twice, the largest first."""
    rows = Rows(np.concatenate([np.repeat(np.arange(600), 2), np.repeat(np.arange(600, 700), 9)]))
    taken, sizes = growing(rows, 1000)
    assert sizes == [1000]
    counts = Counter(rows.target_array(taken).tolist())
    assert (len(counts), max(counts.values())) == (700, 2)
    few, _ = growing(rows, 80)
    assert set(rows.target_array(few).tolist()) <= set(range(600, 700))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks_are_stratified_as_well(task: Task) -> None:
    drawn = np.random.default_rng(0).choice(4, 2000, p=[0.7, 0.2, 0.09, 0.01])
    rows = Rows(np.eye(4)[drawn] if task == "multilabel" else drawn + 0.5, task)
    taken, sizes = growing(rows, 800)
    first = rows.target_array(taken[: sizes[0]])
    if task == "multilabel":
        assert first.sum(axis=0).min() >= 2
        assert first.mean(axis=0) == pytest.approx(rows.labels.mean(axis=0), abs=0.03)
    else:
        assert first.mean() == pytest.approx(rows.labels.mean(), abs=0.1)


def test_grouped_rows_come_from_several_groups() -> None:
    """99 of 100 rows of each class are one person's; four rows of each come from others as far as there are any."""
    names = ["one person" if i % 100 else f"person {i // 100 % 5}" for i in range(10_000)]
    rows = Rows(np.arange(10_000) % 2, of_groups=names)
    taken, sizes = growing(rows, 1000)
    first = Counter(names[row // 2] for row in taken[: sizes[0]])
    assert len(first) >= 4
    assert first["one person"] / sizes[0] > 0.9
    assert len(set(taken.tolist())) == 1000


def test_growing_samples_follow_the_seed_and_survive_growth() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 2000)
    first, _ = growing(Rows(labels), 200)
    assert first.tolist() == growing(Rows(labels), 200)[0].tolist()
    assert first.tolist() != growing(Rows(labels), 200, seed=1)[0].tolist()
    grown, _ = growing(Rows(np.append(labels, [0] * 20)), 200)
    assert len(set(first) & set(grown)) > 180
