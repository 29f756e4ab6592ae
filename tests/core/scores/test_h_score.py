"""The H-score against its formula, with scikit-learn's shrunk covariance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from tl_core.selection.scores import h_score
from tl_core.types import Task


def draw(n: int, d: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = (rng.normal(size=(n, d)) + rng.normal(size=(classes, d))[y]) @ rng.normal(size=(d, d)) + 5
    return x, y


def textbook(x: np.ndarray, y: np.ndarray) -> float:
    """tr(S^-1 (1 - a) cov(E[f|y])) by dense linear algebra."""
    fit = LedoitWolf().fit(x)
    means = np.stack([x[y == label].mean(axis=0) for label in y])
    between = np.cov(means, rowvar=False, bias=True)
    return float(np.trace(np.linalg.inv(fit.covariance_) @ ((1 - fit.shrinkage_) * between)))


@pytest.mark.parametrize(("n", "d"), [(90, 7), (30, 50), (12, 12)], ids=["more rows", "more features", "square"])
def test_classes_give_the_textbook_value(n: int, d: int) -> None:
    x, y = draw(n, d)
    found = h_score(torch.from_numpy(x), torch.from_numpy(y), "multiclass")
    assert found == pytest.approx(textbook(x, y), rel=1e-6)


def test_labels_give_the_mean_over_two_class_problems() -> None:
    x, y = draw(60, 8)
    labels = np.stack([y == 0, y == 2, np.arange(60) % 4 == 1, np.zeros(60, bool)], axis=1)
    expected = np.mean([textbook(x, column) for column in labels.T[:3]])
    found = h_score(torch.from_numpy(x), torch.from_numpy(labels.astype(np.float32)), "multilabel")
    assert found == pytest.approx(expected, rel=1e-6)


def test_two_classes_are_one_label() -> None:
    x, y = draw(60, 8, classes=2)
    features, targets = torch.from_numpy(x), torch.from_numpy(y)
    label = targets[:, None].float()
    assert h_score(features, targets, "multiclass") == pytest.approx(h_score(features, label, "multilabel"), rel=1e-9)


def test_rows_of_two_kinds_have_no_noise_to_shrink() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.0, 4.0]] * 5)
    assert h_score(x, torch.tensor([0, 1] * 5), "multiclass") == pytest.approx(1.0, rel=1e-6)


def test_values_have_no_h_score() -> None:
    with pytest.raises(ValueError, match="not defined for values"):
        h_score(torch.randn(10, 3), torch.randn(10), "regression")


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_classes_further_apart_score_higher(task: Task) -> None:
    rng = np.random.default_rng(3)
    y = np.arange(200) % 4

    def score(distance: float) -> float:
        x = torch.from_numpy(rng.normal(size=(200, 10)) + distance * np.eye(4, 10)[y])
        return h_score(x, torch.from_numpy(y if task == "multiclass" else np.eye(4)[y]), task)

    assert score(4.0) > score(1.0) > score(0.0)
