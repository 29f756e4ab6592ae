"""What the probe says of each row when the row's fold was kept from it, at one strength."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tl_core.evaluation.bootstrap import Bools, Ints
from tl_core.linear_path import LinearProblem, Rotated, moments, rotate
from tl_core.manifest.splits import make_units
from tl_core.selection.crossval import deal
from tl_core.types import Targets


def axes_of(features: npt.NDArray[np.float32]) -> Rotated:
    """Features [N, D] standardised and on their principal axes. Raises ValueError on values that are not finite."""
    x = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    return rotate(x, *moments(x))


def held_out(
    axes: Rotated, truth: npt.NDArray[np.generic], targets: Targets, fold: Ints, strength: float
) -> npt.NDArray[np.float32]:
    """Probabilities [N, C] or values [N] of a probe that has learnt from all other folds.

    Axes and scale are those of all rows: they see no labels. Each fold starts from nothing, because the solution of
    another one has seen its labels.
    """
    outputs, n = targets.outputs, len(fold)
    y, centre, spread = _learnable(truth, targets)
    said = torch.empty(n, outputs)
    for number in np.unique(fold).tolist():
        inside = torch.from_numpy(fold != number)
        rows = axes.rows[inside]
        problem = LinearProblem(rows, axes.energy * (len(rows) / n), y[inside], targets.task, outputs)
        model = problem.solve(strength)
        said[~inside] = torch.addmm(model.bias.float(), axes.rows[~inside], model.weight.float().T)
    if targets.task == "regression":
        return np.asarray(said[:, 0] * spread + centre)
    return np.asarray(said.softmax(dim=1) if targets.task == "multiclass" else said.sigmoid())


def _learnable(truth: npt.NDArray[np.generic], targets: Targets) -> tuple[Tensor, float, float]:
    """Targets as a linear problem takes them, and the mean and spread that values were freed of."""
    if targets.task == "multiclass":
        return torch.from_numpy(truth.astype(np.int64)), 0.0, 1.0
    if targets.task == "multilabel":
        return torch.from_numpy(truth.astype(np.float32)), 0.0, 1.0
    values = truth.astype(np.float64)
    centre, spread = float(values.mean()), float(values.std()) or 1.0
    return torch.from_numpy((values - centre) / spread), centre, spread


def learnable(truth: npt.NDArray[np.generic], targets: Targets, fold: Ints) -> Bools:
    """bool [N]: whether the row's class occurs outside its fold; always, where rows have no one class."""
    if targets.task != "multiclass":
        return np.ones(len(fold), np.bool_)
    counts = np.zeros((targets.outputs, int(fold.max(initial=0)) + 1), np.int64)
    classes = truth.astype(np.int64)
    np.add.at(counts, (classes, fold), 1)
    known: Bools = counts.sum(axis=1)[classes] > counts[classes, fold]
    return known


def tied(digests: Sequence[str], groups: Sequence[str] | None = None) -> Ints:
    """The unit of each row, int64 [N]: rows of one content are one, and so are those of one group."""
    names, contents = np.unique(np.asarray(digests, np.str_), return_inverse=True)
    return make_units(contents.astype(np.int64), names.tolist(), groups).of_row.astype(np.int64)


def dealt(truth: npt.NDArray[np.generic], targets: Targets, folds: int, seed: int, units: Ints, grouped: bool) -> Ints:
    """The fold of each row, int64 [N], the same for all rows of a unit.

    grouped: whether units are large, and so are dealt whole; else rows are dealt by class, and a unit's others follow
    its first.
    """
    if grouped:
        return deal(truth, targets.task, folds, seed, [str(unit) for unit in units.tolist()])
    fold = deal(truth, targets.task, folds, seed)
    _, first, place = np.unique(units, return_index=True, return_inverse=True)
    return fold[first[place]]
