"""H-score: how much of the features' spread, in every direction, lies between the classes."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from tl_core.selection.scores.rows import Axes, columns, on_axes
from tl_core.types import Task

_FLOOR = 1e-10  # of the mean variance: keeps the covariance invertible where nothing is shrunk


def h_score(features: Tensor, targets: Tensor, task: Task) -> float:
    """Trace of inverse covariance times covariance between classes, shrunk (higher is better).

    features: float32 [N, D]; targets: int64 [N] or multi-hot [N, C], the mean over labels, each as two classes.
    tr(S^-1 (1 - a) B), with S = (1 - a) cov + a tr(cov) / D I at Ledoit and Wolf's a, B the covariance of each row's
    class mean, and covariances over N: Ibrahim et al. 2021, arXiv:2110.06893, which mends what Bao et al. (ICIP
    2019) leave to chance where D is not far below N. Not defined for values. Raises ValueError on features that
    aren't finite, where no target varies and on regression.
    """
    axes = on_axes(features)
    return _value(_sums(axes.rows, _members(targets.to(features.device), task)), axes.width, task)


def h_score_without(axes: Axes, targets: Tensor, task: Task, part: Tensor) -> tuple[float, list[float]]:
    """The H-score, and the H-score without the rows of each part. part: int64 [N], parts numbered from 0.

    All that it takes are sums over rows, so that leaving rows out is a subtraction.
    """
    rows, members = axes.rows, _members(targets, task)
    whole = _sums(rows, members)
    without = []
    for number in range(int(part.max()) + 1):
        at = torch.nonzero(part == number).squeeze(1)
        without.append(_value(whole.less(_sums(rows[at], members[at])), axes.width, task))
    return _value(whole, axes.width, task), without


def _members(targets: Tensor, task: Task) -> Tensor:
    """Which rows belong to each class or bear each label, float64 [N, C]; what never varies is left out."""
    if task == "regression":
        raise ValueError("the H-score is not defined for values; it needs classes or labels")
    return columns(targets, task)


@dataclass(frozen=True)
class _Sums:
    """Sums over rows x with s = |x|^2: 1, x, x x^T, s, s x, s^2; and of each class: 1 and x."""

    count: Tensor
    x: Tensor
    xx: Tensor
    s: Tensor
    sx: Tensor
    ss: Tensor
    class_count: Tensor
    class_x: Tensor

    def less(self, other: _Sums) -> _Sums:
        """The sums without those of some of the rows."""
        return _Sums(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


def _sums(x: Tensor, members: Tensor) -> _Sums:
    s = x.square().sum(dim=1)
    count = torch.tensor(float(len(x)), dtype=x.dtype, device=x.device)
    return _Sums(count, x.sum(dim=0), x.T @ x, s.sum(), s @ x, s @ s, members.sum(dim=0), members.T @ x)


def _value(sums: _Sums, width: int, task: Task) -> float:
    n, mean = sums.count, sums.x / sums.count
    covariance = sums.xx / n - torch.outer(mean, mean)
    scale = covariance.trace() / width
    if not scale > 0:  # features that never vary tell nothing
        return 0.0
    shrinkage = _ledoit_wolf(sums, mean, covariance, width)
    shrunk = (1 - shrinkage) * covariance
    shrunk.diagonal().add_(shrinkage * scale + _FLOOR * scale)
    # a class's share of the rows and how far its mean lies from that of all; a label also has a class without it
    occurs = (sums.class_count > 0) & (sums.class_count < n)
    count = sums.class_count[occurs].unsqueeze(1)
    apart = sums.class_x[occurs] / count - mean  # [C, R]
    factor = torch.linalg.cholesky(shrunk)
    spread = torch.linalg.solve_triangular(factor, apart.T, upper=False).square().sum(dim=0)  # [C]
    share = (count / n).squeeze(1)
    if task == "multiclass":
        return float((1 - shrinkage) * (share * spread).sum())
    return float((1 - shrinkage) * (share / (1 - share) * spread).mean()) if len(share) else 0.0


def _ledoit_wolf(sums: _Sums, mean: Tensor, covariance: Tensor, width: int) -> Tensor:
    """The identity's share at which the expected squared error is least. Ledoit and Wolf, J. Multivar. Anal. 2004."""
    n, m = sums.count, mean @ mean
    # sum of |x - mean|^4, from (s - 2 x mean + m)^2
    fourth = (
        sums.ss
        + 4 * (mean @ sums.xx @ mean)
        + n * m * m
        - 4 * (sums.sx @ mean)
        + 2 * m * sums.s
        - 4 * m * (sums.x @ mean)
    )
    energy = covariance.square().sum()
    distance = energy - covariance.trace().square() / width  # of the covariance from the nearest multiple of 1
    error = ((fourth / n - energy) / n).clamp_min(0)
    return (error / distance).clamp_max(1) if distance > 1e-14 * energy else torch.zeros_like(error)
