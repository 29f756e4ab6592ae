"""N-LEEP: how well clusters of the features, found without the targets, foretell the targets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tl_core.selection.scores.rows import Axes, classes, on_axes
from tl_core.types import Task

_ENERGY = 0.8  # share of the variance that the components keep
_PER_CLASS = 5  # clusters
_ROUNDS = 50
_GAIN = 1e-4  # nats per row: a round that gains less is the last
_FLOOR = 1e-2  # of the mean variance: clusters of one row have none of their own


def leep(source_probabilities: Tensor, targets: Tensor) -> float:
    """Log expected empirical prediction: mean log likelihood of the targets given source classes (higher is better).

    source_probabilities: [N, Z], rows that sum to 1; targets: int64 [N]. Nguyen et al., ICML 2020, arXiv:2002.12462.
    Raises ValueError where fewer than two classes occur.
    """
    index, counts = classes(targets)
    return _leep(source_probabilities.double(), torch.nn.functional.one_hot(index, len(counts)).double())


def nleep(features: Tensor, targets: Tensor, task: Task, *, seed: int = 0) -> float:
    """LEEP with the clusters of the features in place of source classes (higher is better).

    features: float32 [N, D]; targets: int64 [N]. A Gaussian mixture with diagonal covariances and five components a
    class (fewer than rows) on the principal components that hold 80% of the variance: Li et al., CVPR 2021,
    arXiv:2011.11200. Defined for classes. Raises ValueError on features that aren't finite, on other tasks and on fewer
    than two classes.
    """
    return nleep_without(on_axes(features), targets.to(features.device), task, None, seed)[0]


def nleep_without(axes: Axes, targets: Tensor, task: Task, part: Tensor | None, seed: int) -> tuple[float, list[float]]:
    """N-LEEP, and N-LEEP without the rows of each part, given the clusters of all rows. part: int64 [N] or None."""
    if task != "multiclass":
        raise ValueError(f"N-LEEP is defined for classes, not for {task}")
    index, counts = classes(targets)
    posteriors = clusters(_principal(axes), min(_PER_CLASS * len(counts), len(index) - 1), seed)
    y = torch.nn.functional.one_hot(index, len(counts)).double()
    numbers = [] if part is None else range(int(part.max()) + 1)
    return _leep(posteriors, y), [_leep(posteriors[part != number], y[part != number]) for number in numbers]


def _leep(theta: Tensor, y: Tensor) -> float:
    tiny = torch.finfo(theta.dtype).tiny
    joint = y.T @ theta  # [C, Z]
    given = joint / joint.sum(dim=0).clamp_min(tiny)
    return float(((theta @ given.T) * y).sum(dim=1).clamp_min(tiny).log().mean())


def _principal(axes: Axes) -> Tensor:
    """The fewest principal components [N, P] that hold 80% of the variance; a column of zeros where there is none."""
    if not len(axes.energy):
        return axes.rows.new_zeros(len(axes.rows), 1)
    held = (axes.energy.cumsum(dim=0) / axes.energy.sum()).tolist()
    return axes.rows[:, : 1 + sum(share < _ENERGY for share in held)]


def clusters(rows: Tensor, count: int, seed: int) -> Tensor:
    """Posteriors [N, Z] of a Gaussian mixture of diagonal covariances, by EM from k-means++ centres.

    Rows are drawn in the order of their lengths, so that neither their own order nor a rotation changes the draw.
    """
    order = rows.square().sum(dim=1).argsort(stable=True)
    x = rows[order]
    floor = _FLOOR * float(x.var(dim=0, correction=0).mean()) or 1.0
    posteriors = torch.nn.functional.one_hot(_nearest(x, _centres(x, count, seed)), count).to(x.dtype)
    last = -math.inf
    for _ in range(_ROUNDS):
        log_joint = _log_joint(x, posteriors, floor)
        log_likelihood = log_joint.logsumexp(dim=1, keepdim=True)
        posteriors = (log_joint - log_likelihood).exp_()
        now = float(log_likelihood.mean())
        if now - last <= _GAIN:
            break
        last = now
    return posteriors[order.argsort()]


def _log_joint(x: Tensor, posteriors: Tensor, floor: float) -> Tensor:
    """Log density of each row with each component [N, Z], of the mixture that the posteriors weigh the rows for."""
    weight = posteriors.sum(dim=0).clamp_min(1e-10)  # [Z]
    mean = (posteriors.T @ x) / weight.unsqueeze(1)  # [Z, P]
    variance = ((posteriors.T @ x.square()) / weight.unsqueeze(1) - mean.square()).clamp_min(0) + floor
    distance = x.square() @ (1 / variance).T - 2 * x @ (mean / variance).T + (mean.square() / variance).sum(dim=1)
    log_det = variance.log().sum(dim=1) + x.shape[1] * math.log(2 * math.pi)
    return (weight / len(x)).log() - 0.5 * (distance + log_det)


def _centres(x: Tensor, count: int, seed: int) -> Tensor:
    """Rows far from each other, drawn by squared distance. Arthur and Vassilvitskii, SODA 2007."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(count, generator=generator, dtype=torch.float64).tolist()
    chosen = [int(draws[0] * len(x))]
    distance = (x - x[chosen[0]]).square().sum(dim=1)
    for draw in draws[1:]:
        reach = distance.cumsum(dim=0)
        at = int(torch.searchsorted(reach, draw * reach[-1], right=True).clamp_max(len(x) - 1))
        chosen.append(at)
        distance = torch.minimum(distance, (x - x[at]).square().sum(dim=1))
    return x[chosen]


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    return (centres.square().sum(dim=1) - 2 * x @ centres.T).argmin(dim=1)
