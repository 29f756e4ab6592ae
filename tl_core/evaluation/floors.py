"""Predictions that use the training labels and nothing else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tl_core.evaluation.bootstrap import Numbers
from tl_core.types import Targets


def majority_predictions(targets: Targets, train_truth: npt.NDArray[np.generic], rows: int) -> Numbers:
    """What a model without features answers on each of rows, in the form of a head's output.

    The training split's most frequent class (ties: the first), the share of each label, or the mean value. A
    read-only view: [rows, C] or [rows].
    """
    truth = np.asarray(train_truth)
    if targets.task == "regression":
        return np.broadcast_to(np.float64(truth.astype(np.float64).mean()), (rows,))
    if targets.task == "multilabel":
        return np.broadcast_to(truth.astype(np.float64).mean(axis=0), (rows, targets.outputs))
    counts = np.bincount(truth.astype(np.int64), minlength=targets.outputs)
    answer = np.eye(1, targets.outputs, int(counts.argmax()))
    return np.broadcast_to(answer, (rows, targets.outputs))
