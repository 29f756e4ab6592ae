"""The probe: a linear head on frozen features, its L2 strength chosen on validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tl_core.engines.cpu import has_bfloat16
from tl_core.errors import UserError
from tl_core.heads import LinearHead, RegressionHead
from tl_core.linear_path import (
    LOOSE,
    TIGHT,
    Linear,
    LinearProblem,
    Rotated,
    balancing,
    beside_axes,
    moments,
    rotate,
)
from tl_core.training.standardise import standardise
from tl_core.training.temperature import folded, temperature
from tl_core.types import Head, HeadSpec, Targets
from tl_core.watch import watch_metric

PATIENCE = 3  # strengths in a row that improve neither metric nor loss: weaker ones only overfit, at most cost

LARGE = 5e8  # multiplications per pass, from which further digits of the weights cost seconds,
TIGHT_LARGE = 1e-4  # and hardly move a prediction: this share of the objective may be left to gain
CLOSE_LARGE = 1e-3
STRIDE = 2  # of a climb along a large problem's path
MOST_JUDGED = 10_000  # training rows that the path's metric is measured on: it is told, and decides nothing


@dataclass(frozen=True)
class ProbeFit:
    """A fitted head, the strength chosen, and what the path found.

    path: one row per strength visited, strongest first: `strength`, `train` and `val` (the watched metric) and
    `val_loss`. temperature: what the head's weights were divided by, None
    where that was not asked for; val_logits: float32 [N, C] of the validation rows by the chosen fit on the training
    rows alone, divided likewise.
    """

    head: Head
    strength: float
    path: list[dict[str, float]]
    temperature: float | None
    val_logits: Tensor


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
    *,
    balance: bool = False,
    calibrate: bool = False,
) -> ProbeFit:
    """Fit a linear head in place along a path of total L2 strengths and keep the best on validation.

    x: float32 [N, D]; y: int64 [N], float32 [N, C] or float32 [N], as the head's loss takes them. Minimises
    `sum of losses + strength / 2 * ||W||^2` on features standardised by the training rows; the bias is free.
    The path goes from strong to weak, each fit starting from the last, and ends early once three strengths in a
    row improve neither the metric nor the loss on validation. Best is by the watched metric, then by the loss,
    then the stronger. The chosen strength is fitted again to a tight tolerance, with refit on train + val
    together. On large problems every other strength is visited until one is no better, then one beside
    the best, and the final fit is less tight.
    balance: losses are weighed so that classes count alike, or both answers of each label. calibrate: the weights are
    divided by the temperature of the chosen fit on the training rows alone, whose validation rows are fresh.
    The same inputs give the same bytes on one machine.
    Raises UserError on a head that is not linear, a strength that is not above 0 and balance of a regression,
    ValueError without training or validation rows and on features that are not finite.
    """
    linear = probed(head, targets)
    if len(x_train) == 0 or len(x_val) == 0:
        raise ValueError(f"a probe needs training and validation rows; got {len(x_train)} and {len(x_val)}")
    _check(strengths, balance, targets)
    fit = _Fit.of(linear, x_train, y_train, targets, balance)
    path = _Path(linear, spec, x_val, y_val)
    descending = sorted(set(strengths), reverse=True)
    chosen = path.climb(fit, descending) if fit.large else path.walk(fit, descending)
    cooling = temperature(chosen.logits, y_val, targets.task) if calibrate else None
    strength, model = chosen.row["strength"], chosen.model
    if refit:
        former, axes = fit.rotated, fit.rotated if fit.large else None
        fit = _Fit.of(linear, torch.cat([x_train, x_val]), torch.cat([y_train, y_val]), targets, balance, axes)
        if axes is None or not fit.large:
            model = fit.rotated.to_axes(former.from_axes(model))
    fit.finish(strength, model)
    logits = chosen.logits
    if cooling is not None:
        linear.load_state_dict(folded(linear, cooling).state_dict())
        logits = logits / cooling
    return ProbeFit(linear, strength, path.rows(), cooling, logits)


def probed(head: Head, targets: Targets) -> LinearHead:
    """The head, where it is one that the probe can fit. Raises UserError on another."""
    needed = RegressionHead if targets.task == "regression" else LinearHead
    if isinstance(head, needed):
        return head
    raise UserError(
        f"the head {type(head).__name__} can't be probed: tune.strategy=probe fits a {needed.__name__} "
        f"for {targets.task}; use tune.head=linear, or tune.strategy=finetune"
    )


def _check(strengths: Sequence[float], balance: bool, targets: Targets) -> None:
    faults = []
    wrong = [s for s in strengths if not (s > 0 and math.isfinite(s))]
    if wrong or not strengths:
        faults.append(
            f"config key 'tune.strengths' holds {', '.join(map(str, wrong)) or 'nothing'}; "
            "give at least one number, all above 0"
        )
    if balance and targets.task == "regression":
        faults.append(
            "config key 'tune.balance' can't be true for regression, which has no classes; set tune.balance=false"
        )
    if faults:
        raise UserError("\n".join(faults))


class _Fit:
    """The rows of one fit on or beside their axes, and the head that takes the solutions."""

    def __init__(self, head: LinearHead, rotated: Rotated, y: Tensor, targets: Targets, balance: bool) -> None:
        """y: as the head's loss takes it."""
        self.rotated = rotated
        self._head, self._targets, self._y = head, targets, y
        self._scaled = (y - head.centre) / head.spread if isinstance(head, RegressionHead) else y
        self._weights = balancing(y, targets.task, targets.outputs) if balance else None
        self._problems: dict[torch.dtype, LinearProblem] = {}

    @classmethod
    def of(
        cls, head: LinearHead, x: Tensor, y: Tensor, targets: Targets, balance: bool, axes: Rotated | None = None
    ) -> _Fit:
        """The fit of features as they come, which also sets the head's standardisation; axes: to steer by, if large."""
        mean, scale = moments(x)
        standardise(head, mean, scale, y)
        large = x.numel() * targets.outputs >= LARGE and len(x) >= 2 * x.shape[1]
        rotated = beside_axes(x, mean, scale, axes) if large else rotate(x, mean, scale)
        return cls(head, rotated, y, targets, balance)

    @property
    def large(self) -> bool:
        return not self.rotated.turned

    def solve(self, strength: float, start: Linear | None, tolerance: float = LOOSE) -> Linear:
        """Solve, put the solution into the head and return it on the axes.

        A loose solution of a large problem is found in bfloat16 where the CPU has it.
        """
        fast = self.large and tolerance > TIGHT_LARGE and self._y.device.type == "cpu" and has_bfloat16()
        problem = self._problem(torch.bfloat16 if fast else torch.float32)
        model = problem.solve(strength, start, tolerance)
        unturned = self.rotated.from_axes(model)
        with torch.no_grad():
            self._head.linear.weight.copy_(unturned.weight)
            self._head.linear.bias.copy_(unturned.bias)
        return model

    def finish(self, strength: float, start: Linear) -> None:
        """Solve as far as it moves predictions, and further where that is cheap."""
        if self.large:  # with quick steps as far as they go
            start = self.solve(strength, start, CLOSE_LARGE)
        self.solve(strength, start, TIGHT_LARGE if self.large else TIGHT)

    @torch.no_grad()
    def said(self, model: Linear) -> tuple[Tensor, Tensor]:
        """What a model says of the fit's own rows, or of evenly spread ones where they are many, and their targets.

        Logits float32 [N, C], targets as the head's loss takes them.
        """
        spread = slice(None, None, max(1, len(self._y) // MOST_JUDGED))
        rows, unturned = self.rotated.rows[spread], model if self.rotated.turned else self.rotated.from_axes(model)
        return torch.addmm(unturned.bias.float(), rows, unturned.weight.float().T), self._y[spread]

    def _problem(self, dtype: torch.dtype) -> LinearProblem:
        if dtype not in self._problems:
            rotated = self.rotated
            self._problems[dtype] = LinearProblem(
                rotated.rows.to(dtype),
                rotated.energy,
                self._scaled,
                self._targets.task,
                self._targets.outputs,
                basis=None if rotated.turned else rotated.basis,
                weights=self._weights,
            )
        return self._problems[dtype]


@dataclass(frozen=True)
class _Visit:
    """A strength that was tried: the row for the path, how good it is, its solution and validation logits."""

    row: dict[str, float]
    key: tuple[float, float]
    model: Linear
    logits: Tensor


class _Path:
    """The strengths visited, judged on validation."""

    def __init__(self, head: LinearHead, spec: HeadSpec, x: Tensor, y: Tensor) -> None:
        self._head, self._spec, self._x, self._y = head, spec, x, y
        self._visits: dict[float, _Visit] = {}

    def walk(self, fit: _Fit, strengths: Sequence[float]) -> _Visit:
        """Visit from strong to weak until weaker ones only overfit; the best."""
        best: _Visit | None = None
        best_loss, stale, model = math.inf, 0, None
        for strength in strengths:
            visit = self._visit(fit, strength, model)
            model, loss = visit.model, visit.row["val_loss"]
            stale = 0 if best is None or visit.key > best.key or loss < best_loss else stale + 1
            best_loss = min(best_loss, loss)
            if best is None or visit.key > best.key:
                best = visit
            if stale == PATIENCE:
                break
        assert best is not None
        return best

    def climb(self, fit: _Fit, strengths: Sequence[float]) -> _Visit:
        """Visit every other strength as long as the next one is better, then one beside the best; the best.

        Of the best one's two neighbours that on the side where the metric fell less.
        """
        best = self._visit(fit, strengths[0], None)
        for strength in strengths[STRIDE::STRIDE]:
            visit = self._visit(fit, strength, best.model)
            if visit.key <= best.key:
                break
            best = visit
        at = strengths.index(best.row["strength"])
        sides = [(other.key, way) for way in (1, -1) if (other := self._beside(strengths, at + STRIDE * way))]
        step = max(sides, default=((), 1))[1]
        if 0 <= at + step < len(strengths):
            self._visit(fit, strengths[at + step], best.model)
        return max(self._visits.values(), key=lambda visit: (visit.key, visit.row["strength"]))

    def _beside(self, strengths: Sequence[float], at: int) -> _Visit | None:
        return self._visits.get(strengths[at]) if 0 <= at < len(strengths) else None

    def rows(self) -> list[dict[str, float]]:
        """The path, strongest first."""
        return [self._visits[strength].row for strength in sorted(self._visits, reverse=True)]

    @torch.no_grad()
    def _visit(self, fit: _Fit, strength: float, start: Linear | None) -> _Visit:
        model = fit.solve(strength, start)
        logits = self._head(self._x)
        val, train = self._metric(logits, self._y), self._metric(*fit.said(model))
        loss = float(self._head.loss(logits, self._y))
        row = {"strength": strength, "train": train, "val": val, "val_loss": loss}
        visit = _Visit(row, (val if self._spec.higher_is_better else -val, -loss), model, logits)
        self._visits[strength] = visit
        return visit

    def _metric(self, logits: Tensor, y: Tensor) -> float:
        said = self._head.decode(logits)
        return watch_metric(self._spec.task, said.cpu().numpy(), y.cpu().numpy(), self._spec.watch)
