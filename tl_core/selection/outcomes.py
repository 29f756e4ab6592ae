"""What single held-out predictions add to the watched metric, so that any weighting of the rows is a product away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from tl_core.types import Task

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Held-out predictions of a sample's rows, reduced to what the task's usual metric is made of.

    terms: float [N, T], per row: right (multiclass); true positives, false positives, false negatives (multilabel);
    squared error, y, y squared (regression). groups: int64 [N], rows of one group are not independent.
    """

    task: Task
    terms: npt.NDArray[np.floating]
    groups: Ints | None = None

    @classmethod
    def of(cls, task: Task, predictions: np.ndarray, truth: np.ndarray, groups: Ints | None = None) -> Outcomes:
        """The outcomes of decoded predictions; both arguments as watch_metric() takes them."""
        terms: Floats
        if task == "multiclass":
            terms = (predictions.argmax(axis=1) == truth)[:, None].astype(np.float64)
        elif task == "multilabel":
            said, true = predictions > 0.5, truth > 0.5
            pairs = ((said & true), (said & ~true), (~said & true))
            terms = np.stack([cells.sum(axis=1) for cells in pairs], axis=1).astype(np.float64)
        else:
            values = truth.astype(np.float64)
            # R2 knows no unit; centred values keep their digits when they are squared
            centre, spread = values.mean(), np.ptp(values) or 1.0
            error, y = (values - predictions) / spread, (values - centre) / spread
            terms = np.stack([error * error, y, y * y], axis=1)
        return cls(task, terms, groups)

    def __len__(self) -> int:
        return len(self.terms)

    def head(self, n: int) -> Outcomes:
        """Those of the first n rows."""
        return Outcomes(self.task, self.terms[:n], None if self.groups is None else self.groups[:n])

    @overload
    def metric(self, weights: None = None) -> float: ...

    @overload
    def metric(self, weights: Floats) -> Floats: ...

    def metric(self, weights: Floats | None = None) -> float | Floats:
        """Accuracy, micro F1 or R2; as watch_metric() has it, or [B] under weights [B, N] of the rows."""
        if weights is None:
            return float(self._value(np.ones((1, len(self))) @ self.terms, np.array([len(self)]))[0])
        return self._value(weights @ self.terms, weights.sum(axis=1))

    def draws(self, weights: Floats, right: Floats, wrong: Floats) -> Floats:
        """The metric [B] under weights [B, N] with two more rows: one wholly right, one wholly wrong.

        right, wrong: their weights [B]. For accuracy these rows count one each; for micro F1 they hold as many cells
        as the mean row; for R2 they vary as much as the rows do, and the wrong one's error is that of saying the mean.
        """
        best, worst = self._extremes()
        sums = weights @ self.terms + np.outer(right, best) + np.outer(wrong, worst)
        return self._value(sums, weights.sum(axis=1) + right + wrong)

    def _extremes(self) -> tuple[Floats, Floats]:
        mean = self.terms.mean(axis=0, dtype=np.float64)
        if self.task == "multiclass":
            return np.array([1.0]), np.array([0.0])
        if self.task == "multilabel":
            cells = 2 * mean[0] + mean[1] + mean[2]
            return np.array([cells / 2, 0, 0]), np.array([0, cells / 2, cells / 2])
        variance = mean[2] - mean[1] ** 2
        return np.array([0, mean[1], mean[2]]), np.array([variance, mean[1], mean[2]])

    def _value(self, sums: Floats, weight: npt.NDArray[np.floating]) -> Floats:
        """The metric of weighted sums of the terms [B, T] and the weights' sums [B]."""
        if self.task == "multiclass":
            above, below, empty = sums[:, 0], weight, 0.0
        elif self.task == "multilabel":
            above, below, empty = 2 * sums[:, 0], 2 * sums[:, 0] + sums[:, 1] + sums[:, 2], 1.0
        else:
            variance = sums[:, 2] - sums[:, 1] ** 2 / weight
            below = np.where(variance > 1e-12 * sums[:, 2], variance, 0.0)
            above, empty = below - sums[:, 0], 0.0
        shares: Floats = np.divide(above, below, out=np.full(len(sums), empty), where=below > 0)
        return shares
