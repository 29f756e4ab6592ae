"""What the scores share: features on their principal axes, and targets as columns or classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tl_core.linear_path import chunks, eigenbasis
from tl_core.types import Task

_ROUNDING = 1e-6  # of a column's mean: what float32 leaves of a constant


@dataclass(frozen=True)
class Axes:
    """Features on the principal axes of their covariance: as many columns as they span, at most N.

    No score here changes when features are rotated, so that all of them can share one decomposition.

    rows: float64 [N, R] around their mean, in units of the largest deviation, the axis of the widest spread first;
    energy: float64 [R], sums of squares along each axis; origin: float64 [R + 1], the mean along the axes and across
    them, in the same unit; width: columns D of the features.
    """

    rows: Tensor
    energy: Tensor
    origin: Tensor
    width: int

    @cached_property
    def around_zero(self) -> tuple[Tensor, Tensor]:
        """Rows with their mean on the axes of their second moments [N, S], each of unit length, and energies [S]."""
        rows = torch.nn.functional.pad(self.rows, (0, 1)) + self.origin
        energy, basis = eigenbasis(rows)
        return rows @ (basis / energy.sqrt()), energy


def on_axes(features: Tensor) -> Axes:
    """Features [N, D] on their axes. Raises ValueError on rows that hold NaN or infinity."""
    require_finite(features)
    rows = features.double()
    mean = rows.mean(dim=0)
    rows = rows - mean  # before any product: some networks' features hardly leave their mean
    rows[:, rows.square().mean(dim=0).sqrt() <= _ROUNDING * mean.abs()] = 0
    largest = rows.abs().amax()
    if largest > 0:  # the features of random networks go down to 1e-31
        rows, mean = rows / largest, mean / largest
    energy, basis = eigenbasis(rows)
    energy, basis = energy.flip(0), basis.flip(1)
    along = mean @ basis
    across = (mean - basis @ along).square().sum().sqrt()
    return Axes(rows @ basis, energy, torch.cat([along, across.reshape(1)]), features.shape[1])


def require_finite(values: Tensor, what: str = "feature rows") -> None:
    """Raise ValueError where rows of [N, ...] hold NaN or infinity, saying how many."""
    bad = sum(int((~part.isfinite()).reshape(len(part), -1).any(dim=1).sum()) for part in chunks(values))
    if bad:
        raise ValueError(f"{bad} of {len(values)} {what} hold NaN or infinity")


def columns(targets: Tensor, task: Task) -> Tensor:
    """The targets as columns to explain, float64 [N, K]: one-hot classes, labels, or the standardised value.

    Those that never vary are left out. Raises ValueError where none varies, or one isn't a number.
    """
    require_finite(targets, "targets")
    if task == "multiclass":
        index, counts = classes(targets)
        return torch.nn.functional.one_hot(index, len(counts)).double()
    y = targets.double().reshape(len(targets), -1)
    varies = (y != y[:1]).any(dim=0)
    _require_some(bool(varies.any()))
    y = y[:, varies]
    return (y - y.mean(dim=0)) / y.std(dim=0, correction=0) if task == "regression" else y


def classes(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Classes that occur, numbered from 0: of each row int64 [N], and how many rows each has [C].

    Raises ValueError on fewer than two.
    """
    _, index, counts = torch.unique(targets, return_inverse=True, return_counts=True)
    _require_some(len(counts) > 1)
    return index, counts


def varies(targets: Tensor) -> bool:
    """Whether there is anything to explain: more than one class, value, or combination of labels."""
    return bool((targets != targets[:1]).any())


def _require_some(anything: bool) -> None:
    if not anything:
        raise ValueError("a score needs targets that vary: at least two classes, labels or values")
