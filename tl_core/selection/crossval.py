"""A cross-validated probe: what a linear head on the features would reach, with its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tl_core.intervals import wilson
from tl_core.linear_path import LOOSE, Linear, LinearProblem, Rotated, moments, rotate
from tl_core.selection.sample import strata
from tl_core.types import Task
from tl_core.watch import watch_metric

STRENGTHS = (300.0, 30.0, 3.0)  # a coarse path: the order of candidates hardly depends on more
RESAMPLES = 500


@dataclass(frozen=True)
class ProbeScore:
    """The watched metric over the pooled held-out predictions, and its interval."""

    value: float
    low: float
    high: float


def cross_validated_probe(
    features: Tensor,
    targets: Tensor,
    task: Task,
    n_outputs: int,
    folds: int,
    seed: int,
    groups: Sequence[str] | None = None,
    *,
    confidence: float = 0.9,
) -> ProbeScore:
    """The probe's accuracy (micro F1, R2) on rows that its fold did not see.

    features: float32 [N, D]; targets: int64 [N], multi-hot [N, C] or float [N]; groups: rows of one group share a
    fold. Each fold chooses its strength on a part of its own training rows. The interval is Wilson's for
    accuracy, a percentile bootstrap otherwise; it takes rows as independent. Raises ValueError on fewer than
    four rows and on features that are not finite.
    """
    if len(targets) < 4:
        raise ValueError(f"a cross-validated probe needs at least four rows; got {len(targets)}")
    if task == "regression":  # neither R2 nor the best ridge model depends on the unit
        values = targets.double()
        spread = values.std(correction=0)
        targets = (values - values.mean()) / (spread if spread > 0 else 1.0)
    # standardising and turning see no targets, so that all folds can share them
    rows = _Rows(rotate(features, *moments(features)), targets, task, n_outputs)
    truth = targets.cpu().numpy()
    fold = deal(truth, task, folds, seed, groups)
    pooled = np.zeros((len(truth), n_outputs) if task != "regression" else len(truth), np.float32)
    for number in range(int(fold.max()) + 1):
        train, held_out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        inner = deal(truth[train], task, folds, seed + 1 + number, groups and [groups[i] for i in train.tolist()])
        strength = _choose(rows, truth, train[inner != 0], train[inner == 0])
        pooled[held_out] = rows.predict(next(iter(rows.path(train, [strength]))), held_out)
    value = watch_metric(task, pooled, truth)
    if task == "multiclass":
        return ProbeScore(value, *wilson(value, len(truth), confidence))
    low, high = _bootstrap(lambda i: watch_metric(task, pooled[i], truth[i]), len(truth), confidence, seed)
    return ProbeScore(value, low, high)


def deal(targets: np.ndarray, task: Task, folds: int, seed: int, groups: Sequence[str] | None = None) -> np.ndarray:
    """The fold of each row, int64 [N]: stratified and even, or whole groups at a time, the largest first.

    Makes fewer folds where there are fewer rows or groups; a single group is dealt by rows.
    """
    shuffled = np.random.default_rng(seed).permutation(len(targets))
    fold = np.empty(len(targets), np.int64)
    names, group, counts = np.unique(groups or [""] * len(targets), return_inverse=True, return_counts=True)
    if len(names) < 2:
        order = shuffled[np.argsort(strata(targets, task)[shuffled], kind="stable")]
        fold[order] = np.arange(len(targets)) % min(folds, len(targets))
        return fold
    sizes = np.zeros(min(folds, len(names)), np.int64)
    arrival = list(dict.fromkeys(group[shuffled].tolist()))
    for name in sorted(arrival, key=lambda g: -counts[g]):
        smallest = int(sizes.argmin())
        fold[group == name] = smallest
        sizes[smallest] += counts[name]
    return fold


@dataclass(frozen=True)
class _Rows:
    """All rows on their axes, and models of parts of them."""

    turned: Rotated
    targets: Tensor
    task: Task
    outputs: int

    def path(self, train: np.ndarray, strengths: Sequence[float]) -> Sequence[Linear]:
        """Models of the training rows at the strengths, from strong to weak."""
        at = torch.from_numpy(train).to(self.turned.rows.device)
        energy = self.turned.energy * (len(train) / len(self.targets))
        problem = LinearProblem(self.turned.rows[at], energy, self.targets[at], self.task, self.outputs)
        models: list[Linear] = []
        for strength in strengths:
            models.append(problem.solve(strength, models[-1] if models else None, LOOSE))
        return models

    def predict(self, model: Linear, rows: np.ndarray) -> np.ndarray:
        """Decoded predictions of the rows."""
        at = torch.from_numpy(rows).to(self.turned.rows.device)
        logits = torch.addmm(model.bias.float(), self.turned.rows[at], model.weight.float().T)
        if self.task == "regression":
            return np.asarray(logits[:, 0].cpu())
        decoded = logits.softmax(dim=1) if self.task == "multiclass" else logits.sigmoid()
        return np.asarray(decoded.cpu())


def _choose(rows: _Rows, truth: np.ndarray, train: np.ndarray, val: np.ndarray) -> float:
    """The strength with the best metric on val, the stronger where they tie."""
    if not len(train) or not len(val):
        return STRENGTHS[len(STRENGTHS) // 2]
    models = rows.path(train, STRENGTHS)
    scores = [watch_metric(rows.task, rows.predict(model, val), truth[val]) for model in models]
    return STRENGTHS[int(np.argmax(scores))]


def _bootstrap(metric: Callable[[np.ndarray], float], n: int, confidence: float, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    draws = [metric(rng.integers(0, n, n)) for _ in range(RESAMPLES)]
    low, high = np.quantile(draws, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
