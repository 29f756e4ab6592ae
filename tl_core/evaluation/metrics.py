"""The numbers of each task: once on the test rows by torchmetrics, and again on rows weighted by a resample.

torchmetrics has no sample weights, hence the second way; the tests hold the two together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tl_core.errors import UserError
from tl_core.evaluation.bootstrap import Floats, Ints
from tl_core.heads import METRICS
from tl_core.types import Targets

TOP_K = 5
Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """One number that a measure gives.

    label: index of the class it belongs to, None for a number over all rows; trials: see `percentile_interval`;
    mean_of: the metric whose classes' mean it is.
    """

    metric: str
    label: int | None = None
    trials: float | None = None
    mean_of: str | None = None


class Measure(ABC):
    """All numbers about one set of predictions; the first column is the task's watch metric."""

    columns: list[Column]

    @abstractmethod
    def point(self) -> Floats:
        """The numbers on the test rows, one per column; nan where undefined."""

    @abstractmethod
    def resampled(self, weights: Floats) -> Floats:
        """The same numbers with each row counted weights [N] times."""

    @abstractmethod
    def watch(self, weights: Floats) -> float:
        """The first of them alone, for sets that only serve as a floor."""


class Multiclass(Measure):
    """Accuracy, macro F1, top-5 accuracy past five classes; precision, recall and F1 of each class.

    probabilities: [N, C]; truth: int64 [N]; units: see `units_of`. Macro F1 is the mean over the classes that
    occur in the truth; in a resample, over those of them that it drew.
    """

    def __init__(self, probabilities: Numbers, truth: Ints, units: Ints) -> None:
        self.classes = probabilities.shape[1]
        self.truth = truth
        self.predicted = probabilities.argmax(axis=1).astype(np.int64)
        self.right = self.predicted == truth
        self.top = _in_top(probabilities, truth, TOP_K) if self.classes > TOP_K else None
        n = len(np.unique(units))
        self.columns = [Column("accuracy", trials=n), Column("macro_f1", mean_of="f1")]
        if self.top is not None:
            self.columns.append(Column(f"top_{TOP_K}_accuracy", trials=n))
        supported = _units_with(units, self.truth, self.classes)
        claimed = _units_with(units, self.predicted, self.classes)
        for metric, trials in (("precision", claimed), ("recall", supported), ("f1", supported)):
            self.columns += [Column(metric, c, float(trials[c])) for c in range(self.classes)]

    def point(self) -> Floats:
        from torchmetrics.functional.classification import multiclass_stat_scores

        scores = multiclass_stat_scores(
            torch.from_numpy(self.predicted), torch.from_numpy(self.truth), num_classes=self.classes, average=None
        ).numpy()
        tp, fp, support = scores[:, 0], scores[:, 1], scores[:, 4]
        total = [tp.sum() / len(self.truth)]
        return self._row(total, [] if self.top is None else [float(self.top.mean())], tp, tp + fp, support)

    def resampled(self, weights: Floats) -> Floats:
        def count(labels: Ints, w: Floats) -> Floats:
            return np.bincount(labels, w, minlength=self.classes).astype(np.float64)

        top = [] if self.top is None else [float(weights[self.top].sum() / weights.sum())]
        tp = count(self.truth[self.right], weights[self.right])
        predicted, support = count(self.predicted, weights), count(self.truth, weights)
        return self._row([tp.sum() / weights.sum()], top, tp, predicted, support)

    def watch(self, weights: Floats) -> float:
        return float(weights[self.right].sum() / weights.sum())

    @staticmethod
    def _row(total: list[float], top: list[float], tp: Floats, predicted: Floats, support: Floats) -> Floats:
        precision, recall, f1 = _rates(tp, predicted, support)
        return np.concatenate([total, [_mean(f1)], top, precision, recall, f1])


class Multilabel(Measure):
    """Micro F1, macro F1 and mean average precision; precision, recall, F1, average precision of each label.

    probabilities: [N, C], a label is given where its probability is above 0.5; truth: bool [N, C]. The two means
    run over the labels that occur in the truth; in a resample, over those of them that it drew.
    """

    def __init__(self, probabilities: Numbers, truth: Bools, units: Ints) -> None:
        self.probabilities = probabilities
        self.truth = truth
        self.given: Bools = probabilities > 0.5
        self.rankings = [_Ranking(p, t) for p, t in zip(probabilities.T, truth.T)]
        self._hits = (truth & self.given).sum(axis=1)
        self._marks = self.given.sum(axis=1) + truth.sum(axis=1)
        self._masks = np.stack([(truth & self.given).T, self.given.T, truth.T]).astype(np.float32)
        labels = range(truth.shape[1])
        self.columns = [
            Column("micro_f1", trials=len(np.unique(units[truth.any(axis=1)]))),
            Column("macro_f1", mean_of="f1"),
            Column("mean_average_precision", mean_of="average_precision"),
        ]
        supported = [len(np.unique(units[truth[:, c]])) for c in labels]
        claimed = [len(np.unique(units[self.given[:, c]])) for c in labels]
        for metric, trials in (
            ("precision", claimed), ("recall", supported), ("f1", supported), ("average_precision", supported),
        ):  # fmt: skip
            self.columns += [Column(metric, c, float(trials[c])) for c in labels]

    def point(self) -> Floats:
        from torchmetrics.functional.classification import binary_average_precision, binary_stat_scores

        scores, precisions = [], []
        for given, probabilities, truth in zip(self.given.T, self.probabilities.T, self.truth.T):
            target = torch.from_numpy(truth.astype(np.int64))
            scores.append(binary_stat_scores(torch.from_numpy(given.astype(np.int64)), target).numpy())
            p = torch.from_numpy(np.ascontiguousarray(probabilities))
            precisions.append(float(binary_average_precision(p, target)) if truth.any() else np.nan)
        tp, fp, _, _, support = np.stack(scores).T
        return self._row(tp, tp + fp, support, np.asarray(precisions))

    def resampled(self, weights: Floats) -> Floats:
        # einsum, not BLAS: its threads cost more than they bring at this size
        counts = np.einsum("kcn,n->kc", self._masks, weights.astype(np.float32))
        tp, predicted, support = counts.astype(np.float64)
        precisions = np.asarray([r.average_precision(weights) for r in self.rankings])
        return self._row(tp, predicted, support, precisions)

    def watch(self, weights: Floats) -> float:
        total = float((weights * self._marks).sum())
        return 2 * float((weights * self._hits).sum()) / total if total else np.nan

    @staticmethod
    def _row(tp: Floats, predicted: Floats, support: Floats, average_precision: Floats) -> Floats:
        precision, recall, f1 = _rates(tp, predicted, support)
        total = float(predicted.sum() + support.sum())
        micro = 2 * float(tp.sum()) / total if total else np.nan
        means = [micro, _mean(f1), _mean(average_precision)]
        return np.concatenate([means, precision, recall, f1, average_precision])


class Regression(Measure):
    """R2, mean absolute error and root mean squared error. values, truth: [N]."""

    def __init__(self, values: Numbers, truth: Numbers, units: Ints) -> None:
        self.values = values.astype(np.float64)
        self.truth = truth.astype(np.float64)
        error = self.values - self.truth
        centred = self.truth - self.truth.mean()  # no cancellation in the weighted variance
        self._table = np.stack([np.abs(error), error**2, centred, centred**2])
        self.columns = [Column("r2"), Column("mae"), Column("rmse")]

    def point(self) -> Floats:
        from torchmetrics.functional.regression import mean_absolute_error, mean_squared_error, r2_score

        p, t = torch.from_numpy(self.values), torch.from_numpy(self.truth)
        r2 = float(r2_score(p, t)) if np.ptp(self.truth) > 0 else np.nan
        return np.asarray(
            [r2, float(mean_absolute_error(p, t)), float(mean_squared_error(p, t, squared=False))], np.float64
        )

    def resampled(self, weights: Floats) -> Floats:
        absolute, squared, centred, spread = np.einsum(
            "kn,n->k", self._table, weights
        )  # no threads: same bits everywhere
        n = weights.sum()
        total = spread - centred**2 / n
        r2 = 1 - squared / total if total > 1e-12 * max(spread, 1e-300) else np.nan
        return np.asarray([r2, absolute / n, np.sqrt(squared / n)], np.float64)

    def watch(self, weights: Floats) -> float:
        return float(self.resampled(weights)[0])


class _Ranking:
    """One label's rows by falling score, cut into blocks that end with a score that some positive row has."""

    def __init__(self, scores: Numbers, truth: Bools) -> None:
        order = np.argsort(-scores, kind="stable")
        ranked, positive = scores[order], truth[order]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) + 1
        found = np.cumsum(positive)[ends - 1]
        ends = ends[np.diff(found, prepend=0) > 0]  # thresholds where recall rises; others add nothing
        self._order = order[: ends[-1]].astype(np.int32) if ends.size else order[:0].astype(np.int32)
        self._starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        self._positives = self._order[positive[: len(self._order)]]
        self._positive_starts = np.concatenate([[0], np.cumsum(positive)[ends - 1][:-1]]).astype(np.int64)

    def average_precision(self, weights: Floats) -> float:
        """Sum of precision times gain in recall over the thresholds; nan without a positive row."""
        if not self._positives.size:
            return np.nan
        gained = np.add.reduceat(weights[self._positives], self._positive_starts)
        seen = np.cumsum(np.add.reduceat(weights[self._order], self._starts))
        total = float(gained.sum())
        return float((gained * np.cumsum(gained) / np.maximum(seen, 1)).sum() / total) if total else np.nan


def measure(targets: Targets, predictions: Numbers, truth: npt.NDArray[np.generic], units: Ints) -> Measure:
    """The task's measure of predictions against truth.

    Raises UserError where there are no rows or predictions are not finite, ValueError on shapes that don't fit.
    """
    rows = len(truth)
    expected = (rows,) if targets.task == "regression" else (rows, targets.outputs)
    if predictions.shape != expected:
        raise ValueError(f"predictions are {predictions.shape}, expected {expected}")
    if rows == 0:
        raise UserError("no usable test row to evaluate on; add rows to the test split or set data.test_fraction")
    bad = int((~np.isfinite(predictions)).sum())
    if bad:
        raise UserError(
            f"{bad} of {predictions.size} predictions are not finite (the training diverged); "
            "lower tune.lr and tune.head_lr, or use tune.strategy=probe"
        )
    if targets.task == "multiclass":
        return Multiclass(predictions, truth.astype(np.int64), units)
    if targets.task == "multilabel":
        return Multilabel(predictions, truth.astype(np.bool_), units)
    return Regression(predictions, truth.astype(np.float64), units)


def watch_name(targets: Targets) -> str:
    """The metric that verdicts and floors are about."""
    return METRICS[targets.task][0]


def _in_top(probabilities: Numbers, truth: Ints, k: int) -> Bools:
    """True where fewer than k classes come before the true one (ties: the class of the lower index first)."""
    own = probabilities[np.arange(len(truth)), truth][:, None]
    before: Ints = (probabilities > own).sum(axis=1)
    tied = (probabilities == own) & (np.arange(probabilities.shape[1]) < truth[:, None])
    inside: Bools = before + tied.sum(axis=1) < k
    return inside


def _rates(tp: Floats, predicted: Floats, support: Floats) -> tuple[Floats, Floats, Floats]:
    """Precision (nan where never predicted), recall and F1 (nan where the class doesn't occur)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = tp / predicted, tp / support
        f1 = np.where(support > 0, 2 * tp / (predicted + support), np.nan)
    return precision, recall, f1


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else np.nan


def _units_with(units: Ints, labels: Ints, classes: int) -> Ints:
    """How many units hold a row of each class, [C]."""
    pairs = np.unique(np.stack([labels, units]), axis=1)
    return np.bincount(pairs[0], minlength=classes)
