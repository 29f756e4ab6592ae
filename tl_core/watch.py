"""The metrics that choices are made by (strength, best epoch, backbone): small pure functions of predictions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tl_core.errors import UserError
from tl_core.types import Task

DEFAULT: dict[Task, str] = {"multiclass": "accuracy", "multilabel": "micro_f1", "regression": "r2"}
_TITLES = {
    "r2": "R²", "mae": "mean absolute error", "rmse": "root mean squared error", "auroc": "AUROC",
    "exact_match": "rows with all labels right",
}  # fmt: skip


def metric_title(metric: str) -> str:
    """A metric's name as people write it: `macro_f1` is macro F1."""
    return _TITLES.get(metric) or metric.replace("_", " ").replace(" f1", " F1").replace("top 5", "top-5")


def watch_metric(task: Task, predictions: np.ndarray, truth: np.ndarray, name: str = "") -> float:
    """The watched metric of decoded predictions; the task's usual one where no name is given.

    predictions: probabilities [N, C] (multiclass, multilabel) or values [N]; truth: int [N], multi-hot [N, C] or
    float [N]. Raises UserError on a name that can't be watched for the task, ValueError without rows.
    """
    metric = METRICS[task].get(name or DEFAULT[task])
    if metric is None:
        raise UserError(f"can't watch the metric '{name}' for {task}; allowed: {', '.join(METRICS[task])}")
    if len(truth) == 0:
        raise ValueError("a metric needs at least one row")
    return metric(predictions, truth)


def accuracy(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Share of rows whose likeliest class is the true one."""
    return float(np.mean(probabilities.argmax(axis=1) == truth))


def macro_f1(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Mean F1 over the columns of two boolean tables [N, C] that occur in the truth; 0 where none does."""
    occurs = truth.any(axis=0)
    hits = (predicted & truth).sum(axis=0)[occurs]
    total = (predicted.sum(axis=0) + truth.sum(axis=0))[occurs]
    return float(np.mean(2 * hits / total)) if occurs.any() else 0.0


def micro_f1(predicted: np.ndarray, truth: np.ndarray) -> float:
    """F1 over all cells of two boolean tables [N, C]; 1 where both are empty."""
    total = int(predicted.sum() + truth.sum())
    return float(2 * (predicted & truth).sum() / total) if total else 1.0


def r2(values: np.ndarray, truth: np.ndarray) -> float:
    """Share of the truth's variance that is explained; 0 where the truth is constant."""
    truth = truth.astype(np.float64)
    variance = float(np.square(truth - truth.mean()).sum())
    return 1.0 - float(np.square(truth - values).sum()) / variance if variance > 0 else 0.0


def mae(values: np.ndarray, truth: np.ndarray) -> float:
    """Mean absolute error."""
    return float(np.abs(truth.astype(np.float64) - values).mean())


def rmse(values: np.ndarray, truth: np.ndarray) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.square(truth.astype(np.float64) - values).mean()))


def _class_f1(probabilities: np.ndarray, truth: np.ndarray) -> float:
    columns = np.arange(probabilities.shape[1])
    return macro_f1(probabilities.argmax(axis=1)[:, None] == columns, truth[:, None] == columns)


METRICS: dict[Task, dict[str, Callable[[np.ndarray, np.ndarray], float]]] = {
    "multiclass": {"accuracy": accuracy, "macro_f1": _class_f1},
    "multilabel": {
        "micro_f1": lambda p, y: micro_f1(p > 0.5, y > 0.5),
        "macro_f1": lambda p, y: macro_f1(p > 0.5, y > 0.5),
    },
    "regression": {"r2": r2, "mae": mae, "rmse": rmse},
}
