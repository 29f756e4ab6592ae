"""The numbers of each task: once on the test rows by torchmetrics, and again on rows weighted by a resample.

torchmetrics has no sample weights, hence the second way; the tests hold the two together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from tl_core.errors import UserError
from tl_core.evaluation.bootstrap import Bools, Floats, Ints, Numbers
from tl_core.evaluation.curves import Ranking
from tl_core.heads import METRICS
from tl_core.types import Targets

TOP_K = 5
RANKED = ("auroc", "average_precision")
Counts = tuple[Floats, Floats, Floats]  # by class: rows that have it and were given it, were given it, have it


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
    def resampled(self, weights: Floats, *, ranked: bool = True) -> Floats:
        """The same numbers with each row counted weights [N] times.

        ranked: False leaves AUROC and average precision, which cost by far the most, nan.
        """

    @abstractmethod
    def watch(self, weights: Floats) -> float:
        """The first of them alone, for sets that only serve as a floor."""


class Multiclass(Measure):
    """Accuracy, macro F1, balanced accuracy, top-5 accuracy past five classes, AUROC, average precision.

    probabilities: [N, C]; truth: int64 [N]; units: see `units_of`. Each class has precision, recall, F1, AUROC and
    average precision against all others. Of two classes the overall AUROC and average precision are those of the
    second, of more the mean; means are over the classes that occur in the truth; in a resample, over those of them
    that it drew.
    """

    def __init__(self, probabilities: Numbers, truth: Ints, units: Ints) -> None:
        self.classes = probabilities.shape[1]
        self.probabilities = probabilities
        self.truth = truth
        self.predicted = probabilities.argmax(axis=1).astype(np.int64)
        self.right = self.predicted == truth
        self.top = _in_top(probabilities, truth, TOP_K) if self.classes > TOP_K else None
        n = len(np.unique(units))
        supported = _units_with(units, self.truth, self.classes)
        claimed = _units_with(units, self.predicted, self.classes)
        self.columns = [
            Column("accuracy", trials=n),
            Column("macro_f1", mean_of="f1"),
            Column("balanced_accuracy", mean_of="recall"),
            *([] if self.top is None else [Column(f"top_{TOP_K}_accuracy", trials=n)]),
            *(
                Column(name, trials=float(supported[1])) if self.classes == 2 else Column(name, mean_of=name)
                for name in RANKED
            ),
        ]
        for metric in ("precision", "recall", "f1", *RANKED):
            trials = claimed if metric == "precision" else supported
            self.columns += [Column(metric, c, float(trials[c])) for c in range(self.classes)]

    @cached_property
    def _rankings(self) -> list[Ranking]:
        return [Ranking(scores, self.truth == c) for c, scores in enumerate(self.probabilities.T)]

    def point(self) -> Floats:
        from torchmetrics.functional.classification import multiclass_stat_scores

        scores = multiclass_stat_scores(
            torch.from_numpy(self.predicted), torch.from_numpy(self.truth), num_classes=self.classes, average=None
        ).numpy()
        tp, fp, support = scores[:, 0], scores[:, 1], scores[:, 4]
        areas = _areas((scores, self.truth == c) for c, scores in enumerate(self.probabilities.T))
        top = [] if self.top is None else [float(self.top.mean())]
        return self._row([tp.sum() / len(self.truth)], top, (tp, tp + fp, support), areas)

    def resampled(self, weights: Floats, *, ranked: bool = True) -> Floats:
        def count(labels: Ints, w: Floats) -> Floats:
            return np.bincount(labels, w, minlength=self.classes).astype(np.float64)

        top = [] if self.top is None else [float(weights[self.top].sum() / weights.sum())]
        tp = count(self.truth[self.right], weights[self.right])
        counts = tp, count(self.predicted, weights), count(self.truth, weights)
        areas = _weighted_areas(self._rankings, weights) if ranked else np.full((2, self.classes), np.nan)
        return self._row([tp.sum() / weights.sum()], top, counts, areas)

    def watch(self, weights: Floats) -> float:
        return float(weights[self.right].sum() / weights.sum())

    def _row(self, total: list[float], top: list[float], counts: Counts, areas: Floats) -> Floats:
        precision, recall, f1 = _rates(*counts)
        overall = areas[:, 1] if self.classes == 2 else [_mean(area) for area in areas]
        return np.concatenate([total, [_mean(f1), _mean(recall)], top, overall, precision, recall, f1, *areas])


class Multilabel(Measure):
    """F1, precision and recall, average precision and AUROC over all labels, and rows with all labels right.

    probabilities: [N, C], a label is given where its probability is above 0.5; truth: bool [N, C]. Each label has
    precision, recall, F1, AUROC and average precision. The means run over the labels that occur in the truth; in a
    resample, over those of them that it drew.
    """

    def __init__(self, probabilities: Numbers, truth: Bools, units: Ints) -> None:
        self.probabilities = probabilities
        self.truth = truth
        self.given: Bools = probabilities > 0.5
        self.exact: Bools = (self.given == truth).all(axis=1)
        self._hits = (truth & self.given).sum(axis=1)
        self._marks = self.given.sum(axis=1) + truth.sum(axis=1)
        self._masks = np.stack([(truth & self.given).T, self.given.T, truth.T]).astype(np.float32)
        labels = range(truth.shape[1])
        with_label, given = (len(np.unique(units[of.any(axis=1)])) for of in (truth, self.given))
        self.columns = [
            Column("micro_f1", trials=with_label),
            Column("macro_f1", mean_of="f1"),
            Column("mean_average_precision", mean_of="average_precision"),
            Column("auroc", mean_of="auroc"),
            Column("micro_precision", trials=given),
            Column("micro_recall", trials=with_label),
            Column("exact_match", trials=len(np.unique(units))),
        ]
        supported = [len(np.unique(units[truth[:, c]])) for c in labels]
        claimed = [len(np.unique(units[self.given[:, c]])) for c in labels]
        for metric in ("precision", "recall", "f1", *RANKED):
            trials = claimed if metric == "precision" else supported
            self.columns += [Column(metric, c, float(trials[c])) for c in labels]

    @cached_property
    def _rankings(self) -> list[Ranking]:
        return [Ranking(scores, truth) for scores, truth in zip(self.probabilities.T, self.truth.T)]

    def point(self) -> Floats:
        from torchmetrics.functional.classification import binary_stat_scores

        scores = [
            binary_stat_scores(torch.from_numpy(given), torch.from_numpy(truth)).numpy()
            for given, truth in zip(self.given.T.astype(np.int64), self.truth.T.astype(np.int64))
        ]
        tp, fp, _, _, support = np.stack(scores).T
        areas = _areas(zip(self.probabilities.T, self.truth.T))
        return self._row((tp, tp + fp, support), areas, float(self.exact.mean()))

    def resampled(self, weights: Floats, *, ranked: bool = True) -> Floats:
        # einsum, not BLAS: its threads cost more than they bring at this size
        counts = np.einsum("kcn,n->kc", self._masks, weights.astype(np.float32))
        tp, predicted, support = counts.astype(np.float64)
        areas = _weighted_areas(self._rankings, weights) if ranked else np.full((2, len(tp)), np.nan)
        return self._row((tp, predicted, support), areas, float(weights[self.exact].sum() / weights.sum()))

    def watch(self, weights: Floats) -> float:
        total = float((weights * self._marks).sum())
        return 2 * float((weights * self._hits).sum()) / total if total else np.nan

    @staticmethod
    def _row(counts: Counts, areas: Floats, exact: float) -> Floats:
        precision, recall, f1 = _rates(*counts)
        hits, given, present = (float(count.sum()) for count in counts)
        micro = 2 * hits / (given + present) if given + present else np.nan
        shares = [hits / given if given else np.nan, hits / present if present else np.nan]
        auroc, average_precision = (_mean(area) for area in areas)
        overall = [micro, _mean(f1), average_precision, auroc, *shares, exact]
        return np.concatenate([overall, precision, recall, f1, *areas])


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

    def resampled(self, weights: Floats, *, ranked: bool = True) -> Floats:
        absolute, squared, centred, spread = np.einsum(
            "kn,n->k", self._table, weights
        )  # no threads: same bits everywhere
        n = weights.sum()
        total = spread - centred**2 / n
        r2 = 1 - squared / total if total > 1e-12 * max(spread, 1e-300) else np.nan
        return np.asarray([r2, absolute / n, np.sqrt(squared / n)], np.float64)

    def watch(self, weights: Floats) -> float:
        return float(self.resampled(weights)[0])


def measure(targets: Targets, predictions: Numbers, truth: npt.NDArray[np.generic], units: Ints) -> Measure:
    """The task's measure of predictions against truth.

    Raises UserError where there are no rows, only one class, or predictions that are not finite, ValueError on shapes
    that don't fit.
    """
    rows = len(truth)
    expected = (rows,) if targets.task == "regression" else (rows, targets.outputs)
    if predictions.shape != expected:
        raise ValueError(f"predictions are {predictions.shape}, expected {expected}")
    if rows == 0:
        raise UserError("no usable test row to evaluate on; add rows to the test split or set data.test_fraction")
    if targets.task == "multiclass" and targets.outputs < 2:
        raise UserError(
            f"the data have one class, '{targets.classes[0]}', and there is nothing to tell it from; add samples of "
            "another class"
        )
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


def _areas(classes: Iterable[tuple[Numbers, Bools]]) -> Floats:
    """AUROC and average precision [2, C] of each class's (scores, truth) by torchmetrics; nan where undefined."""
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    found = []
    for scores, truth in classes:
        p, target = torch.from_numpy(np.ascontiguousarray(scores)), torch.from_numpy(truth.astype(np.int64))
        both, some = 0 < truth.sum() < len(truth), truth.any()
        found.append([
            float(binary_auroc(p, target)) if both else np.nan,
            float(binary_average_precision(p, target)) if some else np.nan,
        ])  # fmt: skip
    return np.asarray(found, np.float64).T


def _weighted_areas(rankings: Sequence[Ranking], weights: Floats) -> Floats:
    counts, total = weights.astype(np.float32), float(weights.sum())  # small whole numbers: float32 holds their sums
    return np.asarray([ranking.areas(counts, total) for ranking in rankings], np.float64).T


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
