"""LogME against the marginal likelihood written out in full, and against what it is for."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from scipy.optimize import minimize  # type: ignore[import-untyped]

from tl_core.selection.scores import logme
from tl_core.types import Task


def slow_evidence(features: np.ndarray, y: np.ndarray) -> float:
    """The highest log N(y; 0, F F^T / alpha + I / beta) over alpha and beta, per row, by a general optimiser."""
    n = len(y)
    gram = features @ features.T

    def negative(logs: np.ndarray) -> float:
        covariance = gram * math.exp(-logs[0]) + np.eye(n) * math.exp(-logs[1])
        _, log_det = np.linalg.slogdet(covariance)
        quadratic = float(y @ np.linalg.solve(covariance, y))
        return 0.5 * (n * math.log(2 * math.pi) + float(log_det) + quadratic)

    starts = [np.array([a, b]) for a in (0.0, 4.0) for b in (0.0, 3.0)]
    best = min(minimize(negative, s, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8}).fun for s in starts)
    return -float(best) / n


def published(features: np.ndarray, columns: np.ndarray) -> float:
    """The algorithm as published: one full decomposition, then a loop over the columns, to convergence."""
    n, d = features.shape
    u, s, _ = np.linalg.svd(features.astype(float), full_matrices=False)
    energy, evidences = s**2, []
    for y in columns:
        explained = np.square(u.T @ y)
        missed = max(0.0, float(y @ y) - float(explained.sum()))
        alpha, beta = 1.0, 1.0
        for _ in range(5000):
            gamma = float((energy * beta / (alpha + energy * beta)).sum())
            weights = float((energy * explained * beta**2 / (alpha + energy * beta) ** 2).sum())
            residual = missed + float((explained * (alpha / (alpha + energy * beta)) ** 2).sum())
            alpha, beta = gamma / weights, (n - gamma) / residual
        log_det = d * math.log(alpha) + float(np.log1p(energy * beta / alpha).sum())
        terms = d * math.log(alpha) + n * math.log(beta) - n * math.log(2 * math.pi) - log_det
        evidences.append((terms - beta * residual - alpha * weights) / (2 * n))
    return float(np.mean(evidences))


def draw(n: int, d: int, signal: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / math.sqrt(d) + 0.3
    scores = signal * features[:, :3] + rng.normal(size=(n, 3))
    return features.astype(np.float32), scores


@pytest.mark.parametrize(("n", "d"), [(60, 8), (25, 40)], ids=["more rows", "more features"])
@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_value_is_the_best_marginal_likelihood(task: Task, n: int, d: int) -> None:
    features, scores = draw(n, d)
    if task == "multiclass":
        targets = scores.argmax(axis=1)
        columns = np.eye(3)[targets].T
    elif task == "multilabel":
        targets = (scores > 0.5).astype(np.float32)
        columns = targets.T
    else:
        targets = scores[:, 0].astype(np.float32) * 50 + 900
        columns = ((targets - targets.mean()) / targets.std())[None]
    expected = np.mean([slow_evidence(features.astype(float), column.astype(float)) for column in columns])
    found = logme(torch.from_numpy(features), torch.from_numpy(targets), task)
    assert found == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(("n", "d"), [(500, 30), (40, 60)], ids=["more rows", "more features"])
def test_value_is_that_of_the_published_algorithm(n: int, d: int) -> None:
    features, scores = draw(n, d, signal=2.0)
    y = scores.argmax(axis=1)
    found = logme(torch.from_numpy(features), torch.from_numpy(y), "multiclass")
    assert found == pytest.approx(published(features, np.eye(3)[y].T), rel=1e-6)


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_features_that_tell_more_score_higher(task: Task) -> None:
    def score(signal: float) -> float:
        features, scores = draw(200, 10, signal, seed=3)
        targets: dict[Task, np.ndarray] = {
            "multiclass": scores.argmax(axis=1),
            "multilabel": (scores > 0).astype(np.float32),
            "regression": scores[:, 0].astype(np.float32),
        }
        return logme(torch.from_numpy(features), torch.from_numpy(targets[task]), task)

    assert score(4.0) > score(1.0) > score(0.0)


def test_rotation_of_the_features_changes_nothing() -> None:
    features, scores = draw(80, 12)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0].astype(np.float32)
    y = torch.from_numpy(scores.argmax(axis=1))
    first = logme(torch.from_numpy(features), y, "multiclass")
    assert logme(torch.from_numpy(features @ turn), y, "multiclass") == pytest.approx(first, abs=1e-5)


def test_unit_of_a_value_changes_nothing() -> None:
    features, scores = draw(80, 12)
    y = torch.from_numpy(scores[:, 0])
    first = logme(torch.from_numpy(features), y, "regression")
    assert logme(torch.from_numpy(features), 1000 * y - 7, "regression") == pytest.approx(first, abs=1e-9)


def test_degenerate_features_give_a_number() -> None:
    y = torch.tensor([0, 1] * 10)
    for features in (torch.ones(20, 4), torch.eye(20), torch.zeros(20, 3), y[:, None].float()):
        assert math.isfinite(logme(features, y, "multiclass"))


def test_absent_classes_do_not_count() -> None:
    features, scores = draw(50, 6)
    y = torch.from_numpy((scores > 0).astype(np.float32))
    padded = torch.cat([y, torch.zeros(50, 1)], dim=1)
    x = torch.from_numpy(features)
    assert logme(x, padded, "multilabel") == pytest.approx(logme(x, y, "multilabel"), abs=1e-12)


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_targets_must_vary(task: Task) -> None:
    same = {"multiclass": torch.zeros(10).long(), "multilabel": torch.ones(10, 2), "regression": torch.ones(10)}
    with pytest.raises(ValueError, match="targets that vary"):
        logme(torch.randn(10, 3), same[task], task)


def test_fifty_thousand_rows_take_seconds() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(50_000, 768, generator=g), torch.randint(0, 100, (50_000,), generator=g)
    started = time.process_time()
    logme(x, y, "multiclass")
    assert time.process_time() - started < 10  # CPU seconds, on a machine that others use too
