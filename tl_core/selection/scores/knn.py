"""Leave-one-out nearest neighbours: whether samples that lie close together share their targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tl_core.selection.scores.rows import Axes, columns, on_axes
from tl_core.types import Task
from tl_core.watch import watch_metric

NEIGHBOURS = 5
_AT_ONCE = 1 << 24  # similarities in memory at a time: 128 MB
_DIGITS = 1e9  # similarities that agree in nine digits are equal, so that rounding decides no vote


def knn(features: Tensor, targets: Tensor, task: Task, *, groups: Sequence[str] | None = None) -> float:
    """Leave-one-out accuracy (micro F1 for labels, R2 for values) of the five nearest other rows.

    features: float32 [N, D]; targets: int64 [N], multi-hot [N, C] or float [N]; groups: neighbours of a row's own
    group don't count (one group for all is none). Nearness is the cosine around the mean of all rows; features are not
    standardised, since their scale is part of what a backbone learnt. Neighbours that are equally near share the
    places that are left, the most votes win, then the nearer voters; where that is a tie, too, a row is right in
    part. So neither the order of rows nor the names of classes count. Raises ValueError on features that aren't finite
    and where no target varies. Cover and Hart, IEEE Trans. Inf. Theory 1967.
    """
    return knn_among(on_axes(features), targets.to(features.device), task, groups)[0]


def knn_among(
    axes: Axes, targets: Tensor, task: Task, groups: Sequence[str] | None = None, subsets: Sequence[Tensor] = ()
) -> list[float]:
    """The score of all rows, then that of each subset (bool [N]), whose rows have neighbours only among themselves."""
    y = columns(targets, task)
    if task != "multiclass":  # labels that never vary are predicted, too, and values in their own unit
        y = targets.double().reshape(len(targets), -1)
    rows = torch.nn.functional.normalize(axes.rows, dim=1)
    group = _strangers(groups, len(rows)).to(rows.device)
    subsets = [torch.ones_like(group, dtype=torch.bool), *subsets]
    predicted: list[list[Tensor]] = [[] for _ in subsets]
    for at in torch.split(torch.arange(len(rows), device=rows.device), max(1, _AT_ONCE // len(rows))):
        near = (rows[at] @ rows.T * _DIGITS).round_()
        near.masked_fill_(group[at].unsqueeze(1) == group, -torch.inf)
        for who, found in zip(subsets, predicted, strict=True):
            found.append(_vote(near[who[at]][:, who], y[who], y[at[who[at]]], task))
    return [_metric(torch.cat(found), targets[who], task) for who, found in zip(subsets, predicted, strict=True)]


def _vote(near: Tensor, y: Tensor, own: Tensor, task: Task) -> Tensor:
    """How right each row's neighbours are [B] (multiclass), or their mean [B, C]."""
    places = _places(near)
    if task != "multiclass":
        return (places @ y) / places.sum(dim=1, keepdim=True).clamp_min(1)
    closeness = (1 + near.clamp_min(-_DIGITS) / _DIGITS) / (4 * NEIGHBOURS)  # less than one vote in all
    votes = (places * (1 + closeness)) @ y
    wins = votes >= votes.amax(dim=1, keepdim=True) - 1e-9
    return (wins * own).sum(dim=1) / wins.sum(dim=1)


def _metric(predicted: Tensor, truth: Tensor, task: Task) -> float:
    if task == "multiclass":
        return float(predicted.mean())
    shaped = predicted.squeeze(1) if task == "regression" else predicted
    return watch_metric(task, shaped.cpu().numpy(), truth.cpu().numpy())


def _places(near: Tensor) -> Tensor:
    """How much of a neighbour's place each row takes [B, N], five places in all; -inf takes none."""
    last = near.topk(min(NEIGHBOURS, near.shape[1]), dim=1).values[:, -1:]
    closer, level = near > last, (near == last) & (near > -torch.inf)
    left = NEIGHBOURS - closer.sum(dim=1, keepdim=True)
    return closer.double() + level * (left / level.sum(dim=1, keepdim=True).clamp_min(1)).clamp_max(1)


def _strangers(groups: Sequence[str] | None, n: int) -> Tensor:
    """Numbers [N] that rows share which may not be neighbours: of its group, or each row its own."""
    numbers = np.unique(groups, return_inverse=True)[1] if groups else np.zeros(n, np.int64)
    return torch.from_numpy(numbers if numbers.any() else np.arange(n))
