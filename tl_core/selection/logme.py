"""LogME: how well a linear model of the features explains the targets, without training one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tl_core.linear_path import chunks, eigenbasis
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
    the evidence of all D dimensions also where N < D. Raises ValueError where no target varies.
    """
    y = _columns(targets.to(features.device), task)  # [N, K]
    n = len(y)
    energy, basis = eigenbasis(features)
    projected = torch.zeros(features.shape[1], y.shape[1], dtype=torch.float64, device=features.device)
    for part, values in zip(chunks(features), chunks(y), strict=True):
        projected += part.double().T @ values
    explained = (basis.T @ projected).square() / energy.unsqueeze(1)  # [R, K] squared coordinates along the axes
    total = y.square().sum(dim=0)
    missed = (total - explained.sum(dim=0)).clamp_min(0)
    alpha, beta = _precisions(energy.unsqueeze(1), explained, missed, total, n)
    return float(_evidence(energy.unsqueeze(1), explained, missed, alpha, beta, n).mean()) / n


def _columns(targets: Tensor, task: Task) -> Tensor:
    """The targets as regression columns float64 [N, K]; those that never vary are left out."""
    if task == "multiclass":
        y = torch.nn.functional.one_hot(targets).double()
    elif task == "multilabel":
        y = targets.double()
    else:
        y = targets.double().unsqueeze(1)
    varies = (y != y[:1]).any(dim=0)
    if not varies.any():
        raise ValueError("LogME needs targets that vary: at least two classes, labels or values")
    y = y[:, varies]
    return (y - y.mean(dim=0)) / y.std(dim=0, correction=0) if task == "regression" else y


def _precisions(energy: Tensor, explained: Tensor, missed: Tensor, total: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The prior's and the noise's precision [K] at which the evidence is highest."""
    alpha = torch.ones_like(total)
    beta = torch.ones_like(total)
    for _ in range(_ROUNDS):
        ratio = alpha / beta
        gamma = (energy / (energy + ratio)).sum(dim=0)
        weights, residual = _fit(energy, explained, missed, ratio)
        alpha = gamma / weights.clamp_min(_TINY)
        beta = (n - gamma) / torch.maximum(residual, _TINY * total)
        if bool(((alpha / beta - ratio).abs() <= _TOLERANCE * ratio).all()):
            break
    return alpha, beta


def _fit(energy: Tensor, explained: Tensor, missed: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior mean's squared norm and its squared error, [K] each."""
    weights = (energy * explained / (energy + ratio).square()).sum(dim=0)
    residual = (explained * (ratio / (energy + ratio)).square()).sum(dim=0) + missed
    return weights, residual


def _evidence(energy: Tensor, explained: Tensor, missed: Tensor, alpha: Tensor, beta: Tensor, n: int) -> Tensor:
    """Log marginal likelihood of each column [K]."""
    weights, residual = _fit(energy, explained, missed, alpha / beta)
    # axes without spread keep the prior's precision, which cancels
    shrinkage = torch.log1p(energy * beta / alpha).sum(dim=0)
    return 0.5 * (n * (beta / (2 * math.pi)).log() - shrinkage - beta * residual - alpha * weights)
