"""Intervals: against recomputation, against the textbook's jackknife, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t  # type: ignore[import-untyped]
from torch import Tensor

from tl_core.selection.scores import h_score, logme, score_interval
from tl_core.selection.scores.h_score import h_score_without
from tl_core.selection.scores.jackknife import PARTS, deal_parts, half_samples, halves, jackknife, student
from tl_core.selection.scores.knn import knn_among
from tl_core.selection.scores.logme import logme_without
from tl_core.selection.scores.rows import on_axes
from tl_core.types import Task


def draw(n: int, d: int, classes: int, rng: np.random.Generator, means: np.ndarray) -> tuple[Tensor, Tensor]:
    y = np.arange(n) % classes
    return torch.from_numpy(rng.normal(size=(n, d)) + means[y]), torch.from_numpy(y)


def test_mean_of_rows_gets_the_usual_standard_error() -> None:
    x = np.random.default_rng(0).normal(size=20)
    without = [float(np.delete(x, i).mean()) for i in range(20)]
    low, high = jackknife(float(x.mean()), without, torch.arange(20), 0.9)
    half = student_t.ppf(0.95, 19) * x.std(ddof=1) / math.sqrt(20)
    assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half), rel=1e-4)


def test_parts_of_unequal_size_still_give_the_standard_error() -> None:
    rng = np.random.default_rng(1)
    part = torch.from_numpy(np.repeat(np.arange(20), rng.integers(1, 12, 20)))
    widths, means = [], []
    for _ in range(400):
        x = rng.normal(size=len(part))
        without = [float(x[part.numpy() != p].mean()) for p in range(20)]
        low, high = jackknife(float(x.mean()), without, part, 0.9)
        widths.append((high - low) / 2 / student(19, 0.9))
        means.append(x.mean())
    assert np.sqrt(np.mean(np.square(widths))) == pytest.approx(1 / math.sqrt(len(part)), rel=0.08)


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 19])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_student(freedom: int, confidence: float) -> None:
    assert student(freedom, confidence) == pytest.approx(student_t.ppf((1 + confidence) / 2, freedom), rel=0.01)


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_logme_without_a_part_is_nearly_its_best_without_it(task: Task) -> None:
    rng = np.random.default_rng(0)
    x, y = draw(200, 12, 4, rng, 0.5 * rng.normal(size=(4, 12)))
    x = x + 0.3
    targets = {"multiclass": y, "multilabel": (x[:, :2] > 0).float(), "regression": x[:, 0] + 0.1 * y}[task]
    part = deal_parts(targets, task, seed=0)
    value, without = logme_without(on_axes(x), targets, task, part)
    assert value == pytest.approx(logme(x, targets, task), rel=1e-9)
    low, high = jackknife(value, without, part, 0.9)
    slow_low, slow_high = score_interval(logme, x, targets, task)
    if task != "regression":  # its unit, the spread of all rows, is kept for the rest
        anew = [logme(x[part != p], targets[part != p], task) for p in range(PARTS)]
        assert without == pytest.approx(anew, abs=2e-3)
        assert high - low == pytest.approx(slow_high - slow_low, rel=0.15)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_h_score_without_a_part_is_the_score_of_the_rest(task: Task) -> None:
    rng = np.random.default_rng(0)
    x, y = draw(80, 12, 4, rng, rng.normal(size=(4, 12)))
    targets = y if task == "multiclass" else torch.nn.functional.one_hot(y)
    part = deal_parts(targets, task, seed=0)
    value, without = h_score_without(on_axes(x), targets, task, part)
    assert value == pytest.approx(h_score(x, targets, task))
    anew = [h_score(x[part != p], targets[part != p], task) for p in range(PARTS)]
    assert without == pytest.approx(anew, rel=1e-6)


def test_rows_of_a_group_are_left_out_together() -> None:
    groups = [f"person {i % 7}" for i in range(70)]
    part = deal_parts(torch.arange(70) % 3, "multiclass", 0, groups)
    assert len(set(part.tolist())) == 7
    assert all(len(set(part[i::7].tolist())) == 1 for i in range(7))
    rng = np.random.default_rng(0)
    y = torch.arange(140) // 7 % 2
    x = torch.from_numpy(rng.normal(size=(20, 5))[np.arange(140) // 7]) + 0.01 * torch.randn(140, 5)
    low, high = score_interval(logme, x, y, "multiclass")
    wide_low, wide_high = score_interval(logme, x, y, "multiclass", groups=[str(i // 7) for i in range(140)])
    assert wide_high - wide_low > 1.5 * (high - low)  # copies of a row are no evidence


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """The mean over many samples of 200 rows lies in the 90% interval of about 90% of the samples."""
    rng = np.random.default_rng(0)
    means = 0.5 * rng.normal(size=(4, 16))
    found: dict[str, list[tuple[float, float, float]]] = {"logme": [], "h_score": [], "knn": []}
    for seed in range(200):
        x, y = draw(200, 16, 4, rng, means)
        axes, part = on_axes(x), deal_parts(y, "multiclass", seed)
        for name, function in (("logme", logme_without), ("h_score", h_score_without)):
            value, without = function(axes, y, "multiclass", part)
            found[name].append((value, *jackknife(value, without, part, 0.9)))
        pairs = halves(part, seed)
        value, *of_halves = knn_among(axes, y, "multiclass", None, pairs)
        found["knn"].append((value, *half_samples(value, of_halves, pairs, PARTS, 0.9)))
    for name, rows in found.items():
        value, low, high = np.array(rows).T
        truth = value.mean()
        coverage = np.mean((low <= truth) & (truth <= high))
        assert 0.85 <= coverage <= 0.95, (name, coverage)


def test_bootstrap_would_have_missed() -> None:
    """Why rows are not drawn with replacement: evidence of copies lies above the evidence that it should surround."""
    rng = np.random.default_rng(0)
    x, y = draw(200, 64, 4, rng, 0.5 * rng.normal(size=(4, 64)))
    value = logme(x, y, "multiclass")
    draws = [rng.integers(0, 200, 200) for _ in range(20)]
    assert min(logme(x[d], y[d], "multiclass") for d in draws) > value
