"""A cross-validated probe: what a linear head on the features reaches on rows that it did not see."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from tl_core.linear_path import LOOSE, Linear, LinearProblem, moments, rotate
from tl_core.selection.outcomes import Outcomes
from tl_core.selection.sample import strata
from tl_core.torch_threads import one_torch_thread
from tl_core.types import Task

REPEATED_ROWS = 1000  # with fewer, rows are dealt into folds again until they were held out about as often
MOST_REPEATS = 5
FOR_ONE_THREAD = 200_000  # values of turned rows; with fewer, threads wait for each other most of the time
STRENGTHS = (300.0, 30.0, 3.0)  # a coarse path: the order of candidates hardly depends on more


def cross_validated_outcomes(
    features: Tensor,
    targets: Tensor,
    task: Task,
    n_outputs: int,
    folds: int,
    seed: int,
    groups: Sequence[str] | None = None,
) -> Outcomes:
    """What the probe says of every row when the row's fold was kept from it.

    features: float32 [N, D]; targets: int64 [N], multi-hot [N, C] or float [N]; groups: rows of one group share a
    fold. A fold's strength is the one that does best on the rows of all other folds, the stronger where they tie.
    Below 1000 rows the mean over several deals, up to five: on 300 rows the luck of one deal moves an accuracy by over
    a point, and each candidate's otherwise. Raises ValueError on fewer than four rows and on features that are not
    finite.
    """
    if len(targets) < 4:
        raise ValueError(f"a cross-validated probe needs at least four rows; got {len(targets)}")
    if task == "regression":  # neither R2 nor the best ridge model depends on the unit
        values = targets.double()
        spread = values.std(correction=0)
        targets = (values - values.mean()) / (spread if spread > 0 else 1.0)
    truth = targets.cpu().numpy()
    codes = None if groups is None else np.unique(np.asarray(groups, object), return_inverse=True)[1].astype(np.int64)
    repeats = min(MOST_REPEATS, max(1, round(REPEATED_ROWS / len(truth))))
    deals = [deal(truth, task, folds, seed + 1_000_003 * repeat, groups) for repeat in range(repeats)]
    with one_torch_thread() if len(truth) * min(features.shape) <= FOR_ONE_THREAD else nullcontext():
        # standardising and turning see no targets, so that all folds can share them
        turned = _turned(features)
        found = [_held_out(*turned, targets, task, n_outputs, fold, codes).terms for fold in deals]
    return Outcomes(task, np.mean(found, axis=0), codes)


def _held_out(
    rows: Tensor,
    energy: Tensor,
    targets: Tensor,
    task: Task,
    n_outputs: int,
    fold: np.ndarray,
    codes: np.ndarray | None,
) -> Outcomes:
    """The outcomes under one deal of the rows into folds. codes: group of each row, int64 [N]."""
    truth = targets.cpu().numpy()
    shape = (len(STRENGTHS), len(truth), n_outputs) if task != "regression" else (len(STRENGTHS), len(truth))
    said = np.zeros(shape, np.float32)
    for number in range(int(fold.max()) + 1):
        inside = torch.from_numpy(fold != number).to(rows.device)
        learnt, held_out = inside.nonzero()[:, 0], (~inside).nonzero()[:, 0]
        problem = LinearProblem(rows[learnt], energy * (len(learnt) / len(truth)), targets[learnt], task, n_outputs)
        model: Linear | None = None
        for at, strength in enumerate(STRENGTHS):
            model = problem.solve(strength, model, LOOSE)
            said[at, fold == number] = _decoded(model, rows[held_out], task)
    return _at_best_strengths([Outcomes.of(task, predictions, truth, codes) for predictions in said], fold)


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


def _at_best_strengths(paths: Sequence[Outcomes], fold: np.ndarray) -> Outcomes:
    """Outcomes at each strength as one: every fold's at the strength that does best on the other folds' rows.

    The probes of those folds learnt from this one's rows, but a choice of three leaks next to nothing of them.
    """
    terms = np.empty_like(paths[0].terms)
    for number in range(int(fold.max()) + 1):
        others = (fold != number).astype(np.float64)[None]
        best = int(np.argmax([path.metric(others)[0] for path in paths]))
        terms[fold == number] = paths[best].terms[fold == number]
    return Outcomes(paths[0].task, terms, paths[0].groups)


def _turned(features: Tensor) -> tuple[Tensor, Tensor]:
    """Standardised features on their principal axes, float32 [N, R], and the energy along each, float64 [R].

    Where rows are fewer than features, their products with each other say it all: no axis of the wide space is made.
    """
    n, width = features.shape
    mean, scale = moments(features)
    if n >= width:
        turned = rotate(features, mean, scale)
        return turned.rows, turned.energy
    if bad := int((~torch.isfinite(features)).any(dim=1).sum()):
        raise ValueError(f"{bad} of {n} feature rows hold NaN or infinity")
    scaled = ((features - mean) / scale).double()
    energy, left = torch.linalg.eigh(scaled @ scaled.T)
    keep = energy > energy.amax().clamp_min(0) * width * torch.finfo(torch.float64).eps
    return (left[:, keep] * energy[keep].sqrt()).float(), energy[keep]


def _decoded(model: Linear, rows: Tensor, task: Task) -> np.ndarray:
    """Predictions of the rows as watch_metric() takes them."""
    logits = torch.addmm(model.bias.float(), rows, model.weight.float().T)
    if task == "regression":
        return np.asarray(logits[:, 0].cpu())
    return np.asarray((logits if task == "multiclass" else logits.sigmoid()).cpu())
