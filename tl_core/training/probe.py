"""The probe: a linear head on frozen features, its L2 strength chosen on validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tl_core.errors import UserError
from tl_core.heads import LinearHead, RegressionHead
from tl_core.linear_path import LOOSE, TIGHT, Linear, LinearProblem, Rotated, moments, rotate
from tl_core.training.standardise import standardise
from tl_core.types import Head, HeadSpec, Targets
from tl_core.watch import watch_metric

PATIENCE = 3  # strengths in a row that improve neither metric nor loss: weaker ones only overfit, at most cost

LARGE = 5e8  # multiplications per pass, from which further digits of the weights cost seconds,
TIGHT_LARGE = 1e-6  # and move no prediction: this share of the objective may be left to gain


@dataclass(frozen=True)
class ProbeFit:
    """A fitted head, the strength chosen, and what the path found.

    path: one row per strength visited, strongest first: `strength`, `train` and `val` (the watched metric) and
    `val_loss`.
    """

    head: Head
    strength: float
    path: list[dict[str, float]]


def fit_probe(
    x_train: Tensor,
    y_train: Tensor,
    x_val: Tensor,
    y_val: Tensor,
    head: Head,
    spec: HeadSpec,
    targets: Targets,
    strengths: Sequence[float],
    refit: bool,
) -> ProbeFit:
    """Fit a linear head in place along a path of total L2 strengths and keep the best on validation.

    x: float32 [N, D]; y: int64 [N], float32 [N, C] or float32 [N], as the head's loss takes them. Minimises
    `sum of losses + strength / 2 * ||W||^2` on features standardised by the training rows; the bias is free.
    The path goes from strong to weak, each fit starting from the last, and ends early once three strengths in a
    row improve neither the metric nor the loss on validation. Best is by the watched metric, then by the loss,
    then the stronger. The chosen strength is fitted again to a tight tolerance, with refit on train + val
    together. The same inputs give the same bytes on one machine.
    Raises UserError on a head that is not linear or a strength that is not above 0, ValueError without
    training or validation rows and on features that are not finite.
    """
    linear = _probed(head, targets)
    if len(x_train) == 0 or len(x_val) == 0:
        raise ValueError(f"a probe needs training and validation rows; got {len(x_train)} and {len(x_val)}")
    wrong = [s for s in strengths if not (s > 0 and math.isfinite(s))]
    if wrong or not strengths:
        raise UserError(
            f"config key 'tune.strengths' holds {', '.join(map(str, wrong)) or 'nothing'}; "
            "give at least one number, all above 0"
        )
    fit = _Fit(linear, x_train, y_train, targets)
    path: list[dict[str, float]] = []
    best: tuple[tuple[float, float], float, Linear] | None = None
    best_loss, stale, model = math.inf, 0, None
    for strength in sorted(set(strengths), reverse=True):
        model = fit.solve(strength, model)
        val, val_loss = _judge(linear, x_val, y_val, spec)
        path.append(
            {"strength": strength, "train": _judge(linear, x_train, y_train, spec)[0], "val": val, "val_loss": val_loss}
        )
        key = (val if spec.higher_is_better else -val, -val_loss)
        stale = 0 if best is None or key > best[0] or val_loss < best_loss else stale + 1
        best_loss = min(best_loss, val_loss)
        if best is None or key > best[0]:
            best = (key, strength, model)
        if stale == PATIENCE:
            break
    assert best is not None
    _, strength, model = best
    if refit:
        start = fit.rotated.from_axes(model)
        fit = _Fit(linear, torch.cat([x_train, x_val]), torch.cat([y_train, y_val]), targets)
        model = fit.rotated.to_axes(start)
    fit.solve(strength, model, fit.tight)
    return ProbeFit(linear, strength, path)


def _probed(head: Head, targets: Targets) -> LinearHead:
    needed = RegressionHead if targets.task == "regression" else LinearHead
    if isinstance(head, needed):
        return head
    raise UserError(
        f"the head {type(head).__name__} can't be probed: tune.strategy=probe fits a {needed.__name__} "
        f"for {targets.task}; use tune.head=linear, or tune.strategy=finetune"
    )


class _Fit:
    """The rows of one fit on their axes, and the head that takes the solutions."""

    rotated: Rotated
    tight: float  # the tolerance of the final fit

    def __init__(self, head: LinearHead, x: Tensor, y: Tensor, targets: Targets) -> None:
        self._head = head
        mean, scale = moments(x)
        standardise(head, mean, scale, y)
        if isinstance(head, RegressionHead):
            y = (y - head.centre) / head.spread
        self.rotated = rotate(x, mean, scale)
        self.tight = TIGHT if x.numel() * targets.outputs < LARGE else TIGHT_LARGE
        self._problem = LinearProblem(self.rotated.rows, self.rotated.energy, y, targets.task, targets.outputs)

    def solve(self, strength: float, start: Linear | None, tolerance: float = LOOSE) -> Linear:
        """Solve, put the solution into the head and return it on the axes."""
        model = self._problem.solve(strength, start, tolerance)
        unturned = self.rotated.from_axes(model)
        with torch.no_grad():
            self._head.linear.weight.copy_(unturned.weight)
            self._head.linear.bias.copy_(unturned.bias)
        return model


@torch.no_grad()
def _judge(head: LinearHead, x: Tensor, y: Tensor, spec: HeadSpec) -> tuple[float, float]:
    """The watched metric and the mean loss, by the head itself."""
    logits = head(x)
    metric = watch_metric(spec.task, head.decode(logits).cpu().numpy(), y.cpu().numpy(), spec.watch)
    return metric, float(head.loss(logits, y))
