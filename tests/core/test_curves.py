"""Curves against scikit-learn, thinning, and the areas on weighted rows where scores are tied."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk

from tl_core.evaluation import Curve, evaluate_predictions
from tl_core.evaluation.curves import MAX_LABELS, MAX_POINTS, Ranking
from tl_core.types import Targets


def curves(
    rows: int, classes: int, signal: float = 1.5, seed: int = 0
) -> tuple[tuple[Curve, ...], np.ndarray, np.ndarray]:
    """The curves of random multi-class predictions, the predictions and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=rows)
    logits = rng.normal(size=(rows, classes)) + signal * np.eye(classes)[truth]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = Targets("multiclass", tuple(f"c{i}" for i in range(classes)))
    found = evaluate_predictions("multiclass", targets, scores, truth, confidence=0.9, resamples=100, seed=0)
    return found.curves, scores, truth


def area(curve: Curve) -> float:
    x, y = np.asarray(curve.points).T
    return float(np.trapezoid(y, x))


def test_curves_are_scikit_learns_and_few_points_keep_their_area() -> None:
    drawn, scores, truth = curves(2000, 3)
    assert {(c.label, c.kind) for c in drawn} == {(f"c{i}", kind) for i in range(3) for kind in ("pr", "roc")}
    for curve in drawn:
        c = int(curve.label[1:])
        assert len(curve.points) <= MAX_POINTS
        assert all(0 <= v <= 1 for point in curve.points for v in point)
        xs = [x for x, _ in curve.points]
        assert xs == sorted(xs)
        positive = truth == c
        if curve.kind == "roc":
            fpr, tpr, _ = sk.roc_curve(positive, scores[:, c], drop_intermediate=False)
            known, expected = set(zip(fpr.round(4), tpr.round(4))), sk.roc_auc_score(positive, scores[:, c])
            assert (curve.points[0], curve.points[-1], curve.chance) == ((0.0, 0.0), (1.0, 1.0), 0.5)
        else:
            precision, recall, _ = sk.precision_recall_curve(positive, scores[:, c])
            known = set(zip(recall.round(4), precision.round(4)))
            expected = sk.average_precision_score(positive, scores[:, c])
            assert curve.chance == pytest.approx(positive.mean())
            assert curve.points[-1][0] == 1.0
        assert len(set(curve.points[1:]) - known) <= 2  # float32 thresholds may round the last digit otherwise
        assert area(curve) == pytest.approx(expected, abs=0.01)
        assert curve.area.value == pytest.approx(expected, abs=1e-5)
        assert curve.area.low < expected < curve.area.high


def test_the_worst_thirty_classes_are_drawn() -> None:
    drawn, scores, truth = curves(800, 40)
    precisions = sk.average_precision_score(np.eye(40)[truth], scores, average=None)
    worst = [f"c{i}" for i in np.argsort(precisions, kind="stable")[:MAX_LABELS]]
    assert [c.label for c in drawn if c.kind == "pr"] == worst
    assert [c.label for c in drawn if c.kind == "roc"] == worst


def test_of_two_classes_the_second_is_drawn() -> None:
    assert [(c.label, c.kind) for c in curves(50, 2)[0]] == [("c1", "pr"), ("c1", "roc")]


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_areas_on_weighted_rows_are_those_of_repeated_rows(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for _ in range(20):
        truth = rng.random(40) < 0.3
        scores = (truth * 0.5 + rng.random(40)).round(3) if levels > 3 else rng.integers(levels, size=40) / levels
        weights = rng.multinomial(40, np.full(40, 1 / 40)).astype(np.float32)
        rows = np.repeat(np.arange(40), weights.astype(int))
        auroc, precision = Ranking(scores, truth).areas(weights, 40.0)
        if 0 < truth[rows].sum() < 40:
            assert auroc == pytest.approx(sk.roc_auc_score(truth[rows], scores[rows]))
            assert precision == pytest.approx(sk.average_precision_score(truth[rows], scores[rows]))


def test_areas_are_undefined_without_rows_of_either_kind() -> None:
    scores, ones = np.asarray([0.1, 0.2, 0.3]), np.ones(3, np.float32)
    assert np.isnan(Ranking(scores, np.zeros(3, bool)).areas(ones, 3.0)).all()
    auroc, precision = Ranking(scores, np.ones(3, bool)).areas(ones, 3.0)
    assert np.isnan(auroc)
    assert precision == 1.0
    drawn_away = Ranking(scores, np.asarray([True, False, False])).areas(np.asarray([0, 2, 1], np.float32), 3.0)
    assert np.isnan(drawn_away).all()
