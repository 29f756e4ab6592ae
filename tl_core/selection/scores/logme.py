"""LogME: how well a linear model of the features explains the targets, without training one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tl_core.linear_path import chunks, eigenbasis
from tl_core.selection.scores.rows import Axes, classes, columns, require_finite
from tl_core.torch_threads import one_torch_thread
from tl_core.types import Task

_ROUNDS = 200
_TOLERANCE = 1e-6  # relative change of the ratio of the two precisions
_TINY = 1e-12  # of the target's energy: less than this is rounding, not noise


def logme(features: Tensor, targets: Tensor, task: Task) -> float:
    """Log marginal evidence per sample of the targets given the features (higher is better).

    features: float32 [N, D], as the backbone gives them; targets: int64 [N], multi-hot [N, C] or float [N]. The
    mean over one-hot classes, over labels, or of the value (standardised, so that its unit doesn't count);
    classes and labels that are the same in every row don't count. Float64, by one eigendecomposition and
    fixed-point iteration of the prior's and the noise's precision: You et al., ICML 2021, arXiv:2102.11005, with
    the evidence of all D dimensions also where N < D. Raises ValueError on features that aren't finite and where
    no target varies.
    """
    targets = targets.to(features.device)
    with one_torch_thread():  # all but the Gram matrix is too light for several
        require_finite(features)
        projected, total = _projected(features, targets, task)
    energy, basis = eigenbasis(features)
    explained = (basis.T @ projected).square() / energy.unsqueeze(1)  # [R, K] squared coordinates along the axes
    with one_torch_thread():
        return float(_Evidence(energy, explained, total, len(targets)).log().mean()) / len(targets)


def logme_without(axes: Axes, targets: Tensor, task: Task, part: Tensor) -> tuple[float, list[float]]:
    """LogME, and LogME without the rows of each part. part: int64 [N], parts numbered from 0.

    The log evidence of the rest is the log evidence less the log density that the rest predicts for the part. The
    precisions stay those of all rows: where the evidence is highest, moving them a little changes nothing.
    """
    y = columns(targets, task)
    n = len(y)
    left, energy = axes.around_zero
    coordinates = left.T @ y  # [S, K]
    whole = _Evidence(energy, coordinates.square(), y.square().sum(dim=0), n)
    shrunk = whole.energy / (whole.energy + whole.alpha / whole.beta)  # [S, K] share of each axis that is explained
    residual = y - left @ (shrunk * coordinates)
    log = whole.log()
    without = []
    for number in range(int(part.max()) + 1):
        rows = torch.nonzero(part == number).squeeze(1)
        log_rest = log - _log_predicted(left[rows], shrunk, residual[rows], whole.beta)
        without.append(float(log_rest.mean()) / (n - len(rows)))
    return float(log.mean()) / n, without


def _log_predicted(left: Tensor, shrunk: Tensor, residual: Tensor, beta: Tensor) -> Tensor:
    """Log density [K] of a part's targets given those of all other rows.

    With S the inverse covariance of all targets, the part's prediction error is (S_pp)^-1 (S y)_p and its covariance
    (S_pp)^-1, where S = beta (1 - U diag(shrunk) U^T).
    """
    m = len(left)
    densities = []
    for share, error, precision in zip(shrunk.T, residual.T, beta):
        inverse = torch.eye(m, dtype=left.dtype, device=left.device).addmm_(left * share, left.T, alpha=-1)
        factor = torch.linalg.cholesky_ex(inverse + 1e-12 * torch.eye(m, dtype=left.dtype, device=left.device))[0]
        whitened = torch.linalg.solve_triangular(factor, error.unsqueeze(1), upper=False)
        log_det = 2 * factor.diagonal().log().sum() + m * precision.log()
        densities.append(0.5 * (log_det - m * math.log(2 * math.pi) - precision * whitened.square().sum()))
    return torch.stack(densities)


def _projected(features: Tensor, targets: Tensor, task: Task) -> tuple[Tensor, Tensor]:
    """Products of the features with the targets' columns [D, K], and the columns' sums of squares [K], float64."""
    if task == "multiclass":  # sums of each class's rows, for the cost of reading them
        index, counts = classes(targets)
        sums = torch.zeros(len(counts), features.shape[1], dtype=torch.float64, device=features.device)
        for part, at in zip(chunks(features), chunks(index), strict=True):
            sums.index_add_(0, at, part.double())
        return sums.T, counts.double()
    y = columns(targets, task)
    products = torch.zeros(features.shape[1], y.shape[1], dtype=torch.float64, device=features.device)
    for part, values in zip(chunks(features), chunks(y), strict=True):
        products += part.double().T @ values
    return products, y.square().sum(dim=0)


class _Evidence:
    """The evidence of each column, and the precisions alpha (prior) and beta (noise) [K] at which it is highest."""

    def __init__(self, energy: Tensor, explained: Tensor, total: Tensor, n: int) -> None:
        # the unit of the features doesn't count; this one is where the precisions start from
        self.energy = (energy / energy.mean()).unsqueeze(1)  # [R, 1]
        self.explained = explained  # [R, K]
        self.missed = (total - explained.sum(dim=0)).clamp_min(0)
        self.n = n
        self.alpha, self.beta = torch.ones_like(total), torch.ones_like(total)
        for _ in range(_ROUNDS):
            ratio = self.alpha / self.beta
            gamma = (self.energy / (self.energy + ratio)).sum(dim=0)
            weights, residual = self._fit(ratio)
            self.alpha = gamma / weights.clamp_min(_TINY)
            self.beta = (n - gamma) / torch.maximum(residual, _TINY * total)
            if bool(((self.alpha / self.beta - ratio).abs() <= _TOLERANCE * ratio).all()):
                break

    def _fit(self, ratio: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior mean's squared norm and its squared error, [K] each."""
        weights = (self.energy * self.explained / (self.energy + ratio).square()).sum(dim=0)
        residual = (self.explained * (ratio / (self.energy + ratio)).square()).sum(dim=0) + self.missed
        return weights, residual

    def log(self) -> Tensor:
        """Log marginal likelihood of each column [K]."""
        weights, residual = self._fit(self.alpha / self.beta)
        # axes without spread keep the prior's precision, which cancels
        shrinkage = torch.log1p(self.energy * self.beta / self.alpha).sum(dim=0)
        noise = self.n * (self.beta / (2 * math.pi)).log()
        return 0.5 * (noise - shrinkage - self.beta * residual - self.alpha * weights)
