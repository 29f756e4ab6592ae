"""Outcomes of single rows: their sums are the watched metrics, weighted or not."""

from __future__ import annotations

import numpy as np
import pytest

from tl_core.selection.outcomes import Outcomes
from tl_core.types import Task
from tl_core.watch import watch_metric


def predictions(task: Task, n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if task == "multiclass":
        return rng.random((n, 4)), rng.integers(4, size=n)
    if task == "multilabel":
        return rng.random((n, 4)), (rng.random((n, 4)) > 0.6).astype(np.int64)
    truth = 1e4 + rng.standard_normal(n)
    return truth + rng.standard_normal(n), truth


TASKS: list[Task] = ["multiclass", "multilabel", "regression"]


@pytest.mark.parametrize("task", TASKS)
def test_the_metric_is_the_watched_one(task: Task) -> None:
    said, truth = predictions(task)
    outcomes = Outcomes.of(task, said, truth)
    assert len(outcomes) == 60
    assert outcomes.metric() == pytest.approx(watch_metric(task, said, truth), abs=1e-12)
    assert outcomes.metric(np.ones((2, 60))) == pytest.approx(outcomes.metric(), abs=1e-12)
    first = outcomes.head(25)
    assert len(first) == 25
    assert first.metric() == pytest.approx(watch_metric(task, said[:25], truth[:25]), abs=1e-12)


@pytest.mark.parametrize("task", TASKS)
def test_a_weight_counts_as_so_many_rows(task: Task) -> None:
    said, truth = predictions(task)
    counts = np.random.default_rng(1).integers(0, 3, (5, 60))
    expected = [watch_metric(task, said.repeat(c, axis=0), truth.repeat(c, axis=0)) for c in counts]
    assert Outcomes.of(task, said, truth).metric(counts.astype(np.float64)) == pytest.approx(np.array(expected))


def test_degenerate_truths_are_as_in_the_watched_metric() -> None:
    nothing = np.zeros((5, 3))
    assert Outcomes.of("multilabel", nothing, nothing).metric() == watch_metric("multilabel", nothing, nothing) == 1.0
    constant, said = np.full(5, 0.1), np.arange(5.0)
    assert Outcomes.of("regression", said, constant).metric() == watch_metric("regression", said, constant) == 0.0
    both = [Outcomes.of("multilabel", nothing, nothing), Outcomes.of("regression", said, constant)]
    for outcomes in both:
        assert np.isfinite(outcomes.draws(np.ones((3, 5)), np.ones(3), np.ones(3))).all()


@pytest.mark.parametrize("task", TASKS)
def test_rows_that_are_right_or_wrong_pull_to_one_and_nought(task: Task) -> None:
    said, truth = predictions(task, 400)
    outcomes = Outcomes.of(task, said, truth)
    weights, none, many = np.ones((1, 400)), np.zeros(1), np.full(1, 1e9)
    assert outcomes.draws(weights, none, none) == pytest.approx(outcomes.metric())
    assert outcomes.draws(weights, many, none) == pytest.approx(1, abs=1e-4)
    assert outcomes.draws(weights, none, many) == pytest.approx(0, abs=1e-4)
    assert outcomes.draws(weights, many, many) == pytest.approx(0.5, abs=1e-4)


def test_groups_are_cut_with_the_rows() -> None:
    said, truth = predictions("multiclass")
    groups = np.arange(60) // 3
    head = Outcomes.of("multiclass", said, truth, groups).head(10)
    assert head.groups is not None
    assert head.groups.tolist() == groups[:10].tolist()
