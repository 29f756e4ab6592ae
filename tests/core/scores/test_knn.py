"""Nearest neighbours against a loop over rows, and what ties, groups and parts do."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from tl_core.selection.scores import knn
from tl_core.selection.scores.knn import knn_among
from tl_core.selection.scores.rows import on_axes
from tl_core.types import Task
from tl_core.watch import watch_metric


def nearest(x: np.ndarray, groups: list[str] | None = None) -> list[list[tuple[float, int]]]:
    """Of each row its five nearest others by cosine around the mean: (similarity, row), the nearest first."""
    x = x - x.mean(axis=0)
    found = []
    for i, row in enumerate(x):
        similar = [
            (float(row @ other) / math.sqrt(float(row @ row) * float(other @ other)), j)
            for j, other in enumerate(x)
            if (groups[i] != groups[j] if groups else i != j)
        ]
        found.append(sorted(similar, reverse=True)[:5])
    return found


def voted(x: np.ndarray, y: np.ndarray, groups: list[str] | None = None) -> float:
    right = 0
    for i, neighbours in enumerate(nearest(x, groups)):
        votes: dict[int, tuple[int, float]] = {}
        for similarity, j in neighbours:
            count, closeness = votes.get(int(y[j]), (0, 0.0))
            votes[int(y[j])] = (count + 1, closeness + similarity)
        right += max(votes, key=votes.__getitem__) == y[i]
    return right / len(y)


def draw(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    return rng.normal(size=(n, d)) + 0.8 * rng.normal(size=(4, d))[y] + 2, y


@pytest.mark.parametrize(("n", "d"), [(80, 6), (40, 60)], ids=["more rows", "more features"])
def test_classes_are_what_a_loop_votes(n: int, d: int) -> None:
    x, y = draw(n, d)
    assert knn(torch.from_numpy(x), torch.from_numpy(y), "multiclass") == pytest.approx(voted(x, y))
    groups = [f"g{i // 4}" for i in range(n)]
    found = knn(torch.from_numpy(x), torch.from_numpy(y), "multiclass", groups=groups)
    assert found == pytest.approx(voted(x, y, groups))


def test_labels_and_values_are_the_neighbours_mean() -> None:
    x, y = draw(60, 6)
    rows = [[j for _, j in neighbours] for neighbours in nearest(x)]
    labels = np.stack([y > 1, y % 2 == 0, np.zeros(60, bool)], axis=1).astype(np.float32)
    expected = watch_metric("multilabel", labels[rows].mean(axis=1), labels)
    assert knn(torch.from_numpy(x), torch.from_numpy(labels), "multilabel") == pytest.approx(expected)
    values = 900 + 50 * x[:, 0]
    expected = watch_metric("regression", values[rows].mean(axis=1), values)
    assert knn(torch.from_numpy(x), torch.from_numpy(values), "regression") == pytest.approx(expected)


def test_neighbours_of_the_own_group_do_not_count() -> None:
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(20), 5)  # everyone has five rows that are nearly equal, of one class
    x = torch.from_numpy(rng.normal(size=(20, 8))[people] + 0.01 * rng.normal(size=(100, 8)))
    y = torch.from_numpy(rng.integers(0, 4, 20)[people])
    leaked = knn(x, y, "multiclass")
    honest = knn(x, y, "multiclass", groups=[str(p) for p in people])
    assert leaked == 1.0
    assert honest < 0.6
    assert knn(x, y, "multiclass", groups=["all"] * 100) == leaked


def test_rows_equally_near_share_the_vote() -> None:
    same = torch.ones(12, 3)
    y = torch.tensor([0] * 8 + [1] * 4)  # all are equally near: the larger class wins everywhere
    assert knn(same, y, "multiclass") == pytest.approx(8 / 12)
    even = torch.tensor([0, 0, 1, 1])  # the others always hold more of the other class
    assert knn(same[:4], even, "multiclass") == 0.0
    pairs = torch.tensor([[1.0, 0.0], [-1.0, 0.0]] * 3)
    mixed = torch.tensor([0, 1, 1, 0, 2, 2])
    first = knn(pairs, mixed, "multiclass")
    order = torch.tensor([3, 0, 5, 2, 4, 1])
    assert knn(pairs[order], mixed[order], "multiclass") == pytest.approx(first)


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_subset_has_the_score_of_its_rows(task: Task) -> None:
    x, y = draw(50, 5)
    x -= x.mean(axis=0)
    twice = torch.from_numpy(np.concatenate([x, -x]))  # rows and mirror images: each subset's mean is that of all
    y = np.tile(y, 2)
    targets = torch.from_numpy({"multiclass": y, "multilabel": np.eye(4)[y], "regression": y.astype(float)}[task])
    subsets = [torch.from_numpy(np.tile(np.arange(50) % 5 == number, 2)) for number in range(5)]
    value, *found = knn_among(on_axes(twice), targets, task, None, subsets)
    assert value == pytest.approx(knn(twice, targets, task))
    for who, score in zip(subsets, found, strict=True):
        assert score == pytest.approx(knn(twice[who], targets[who], task))


def test_few_rows_use_what_neighbours_there_are() -> None:
    x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-0.9, 0.1]])
    assert knn(x[[0, 2]], torch.tensor([0, 1]), "multiclass") == 0.0
    assert 0 <= knn(x, torch.tensor([0, 0, 1, 1]), "multiclass") <= 1


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draw(60, 6)
    features, targets = torch.from_numpy(x), torch.from_numpy(y)
    whole = knn(features, targets, "multiclass")
    monkeypatch.setattr(sys.modules[knn_among.__module__], "_AT_ONCE", 7 * 60)
    assert knn(features, targets, "multiclass") == whole
