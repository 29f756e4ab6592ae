"""Linear models under an L2 penalty, solved exactly and fast over a path of strengths.

The objective is `sum of losses + strength / 2 * ||W||^2` with a free bias: cross-entropy (multiclass), binary
cross-entropy per label (multilabel) or squared error (regression). Features are turned onto their principal axes
first. A rotation changes neither the penalty nor the optimum, but there the Hessian is nearly diagonal, so that
L-BFGS with that diagonal as its first guess needs a handful of passes per strength; for squared error the
diagonal is the Hessian and the first step the closed-form ridge solution, at every strength from one
eigendecomposition. With fewer rows than features the rotated problem is only as wide as there are rows. Where rows are
many, they stay as they are and the parameters are turned instead: the axes only steer the solver, so that those of a
sample of the rows do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_core.torch_threads import one_torch_thread
from tl_core.types import Task

LOOSE = 3e-3  # share of the objective that may be left to gain: enough to compare strengths
TIGHT = 1e-8  # weights agree with the optimum to about 1e-3 of their size or better
MEMORY = 10
MAX_ITERATIONS = 500
Pairs = deque[tuple[Tensor, Tensor]]
"""Steps and the changes of the gradient along them, oldest first: what L-BFGS knows of the Hessian."""

STEERING = 8  # rows per feature that tell the axes well enough to steer by
CHUNK = 4096  # rows per pass: logits stay in the cache
SMALL_CHUNK = 512  # the same where rows become float64
SLACK = {torch.float32: 1e-7, torch.bfloat16: 1e-4}  # losses can't tell values that are nearer to each other
SMALL_MATRIX = 1024  # rows and columns


@dataclass(frozen=True)
class Linear:
    """weight [C, D] and bias [C], float64, and the pairs that say how the loss curves there, where they are known."""

    weight: Tensor
    bias: Tensor
    pairs: tuple[tuple[Tensor, Tensor], ...] = ()


@dataclass(frozen=True)
class Rotated:
    """Rows on their principal axes, or beside them.

    rows: float32 [N, R], or [N, D] where they were not turned; energy: float64 [R], sum of squares along each axis;
    basis: float64 [D, R], orthonormal.
    """

    rows: Tensor
    energy: Tensor
    basis: Tensor
    turned: bool = True

    def to_axes(self, model: Linear) -> Linear:
        """A model of the unrotated features, as one of the rotated ones."""
        return Linear(model.weight @ self.basis, model.bias)

    def from_axes(self, model: Linear) -> Linear:
        """A model of the rotated features, as one of the unrotated ones."""
        return Linear(model.weight @ self.basis.T, model.bias)


def chunks(x: Tensor, rows: int = CHUNK) -> Iterator[Tensor]:
    """Views of successive rows, few enough for the cache."""
    return (x[at : at + rows] for at in range(0, len(x), rows))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and scale (standard deviation, 1 for constant columns) of features [N, D]: float32 [D] each."""
    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for part in chunks(x, SMALL_CHUNK):
        total += part.double().sum(dim=0)
    mean = total / len(x)
    squares = torch.zeros_like(total)
    for part in chunks(x, SMALL_CHUNK):
        squares += (part.double() - mean).square_().sum(dim=0)
    scale = (squares / len(x)).sqrt()
    # what rounding leaves of a constant column is no spread
    constant = scale <= 1e-6 * mean.abs().clamp_min(1e-30)
    return mean.float(), torch.where(constant, torch.ones_like(scale), scale).float()


def eigenbasis(x: Tensor, mean: Tensor | None = None, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Principal axes of (x - mean) / scale [N, D]: sums of squares [R], ascending, and axes [D, R], float64.

    R is min(N, D) or less: axes without any spread are left out. Uses the smaller of the two Gram matrices.
    """

    def scaled(part: Tensor) -> Tensor:
        part = part if mean is None else part - mean
        return (part if scale is None else part / scale).double()

    n, width = x.shape
    if n < width:
        rows = scaled(x)
        energy, left = _eigh(rows @ rows.T)
        keep = _spread(energy, n, width)
        axes = rows.T @ (left[:, keep] / energy[keep].sqrt())  # [D, N] @ [N, R] -> [D, R]
        # dividing by small roots costs orthogonality, which the penalty needs
        return energy[keep], torch.linalg.qr(axes)[0] if keep.any() else axes
    gram = torch.zeros(width, width, dtype=torch.float64, device=x.device)
    for part in chunks(x):
        rows = scaled(part)
        gram.addmm_(rows.T, rows)
    energy, axes = _eigh(gram)
    keep = _spread(energy, n, width)
    return energy[keep], axes[:, keep]


def _eigh(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and vectors of a symmetric matrix; small ones in one thread, which loses nothing."""
    if len(gram) > SMALL_MATRIX:
        return torch.linalg.eigh(gram)  # type: ignore[no-any-return]
    with one_torch_thread():
        return torch.linalg.eigh(gram)  # type: ignore[no-any-return]


def _spread(energy: Tensor, n: int, width: int) -> Tensor:
    floor = energy.amax().clamp_min(0) * max(n, width) * torch.finfo(torch.float64).eps
    return energy > floor


def rotate(x: Tensor, mean: Tensor, scale: Tensor) -> Rotated:
    """Standardised features on their principal axes. Raises ValueError on values that are not finite."""
    energy, basis = eigenbasis(_finite(x), mean, scale)
    turn = basis.float()
    rows = torch.empty(len(x), basis.shape[1], device=x.device)
    for part, out in zip(chunks(x), chunks(rows), strict=True):
        torch.mm((part - mean) / scale, turn, out=out)
    return Rotated(rows, energy, basis)


def beside_axes(x: Tensor, mean: Tensor, scale: Tensor, axes: Rotated | None = None) -> Rotated:
    """Standardised features as they are [N, D], with D axes and energies along them: given, or a sample's own.

    Turning 50,000 rows of 768 features costs as much as three passes of 100 classes over them; to turn the
    parameters instead costs next to nothing. Raises ValueError on values that are not finite.
    """
    _finite(x)
    rows = torch.empty(x.shape, device=x.device)
    for part, out in zip(chunks(x), chunks(rows), strict=True):
        torch.sub(part, mean, out=out).div_(scale)
    if axes is not None:
        return Rotated(rows, axes.energy * (len(x) / len(axes.rows)), axes.basis, turned=False)
    sample = rows[:: max(1, len(rows) // (STEERING * rows.shape[1]))]
    gram = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=x.device)
    for part in chunks(sample):
        gram += part.T @ part
    energy, basis = _eigh(gram)
    return Rotated(rows, energy.clamp_min(0) * (len(rows) / len(sample)), basis, turned=False)


def _finite(x: Tensor) -> Tensor:
    if all(bool(torch.isfinite(part.sum())) for part in chunks(x)):  # ten times as fast, and next to always enough
        return x
    bad = sum(int((~torch.isfinite(part)).any(dim=1).sum().item()) for part in chunks(x))
    if bad:
        raise ValueError(f"{bad} of {len(x)} feature rows hold NaN or infinity")
    return x


class LinearProblem:
    """One fit: rotated rows, their targets and the outputs that can be learnt from them.

    rows: float32 [N, R], or bfloat16 where a solution to `LOOSE` is enough; energy: float64 [R] over these rows (an
    estimate will do, it only steers the solver); targets: int64 [N], multi-hot float [N, C] or float [N]; basis:
    float64 [D, R], orthonormal with R = D, where the rows are [N, D] and not on these axes (models are, all the same);
    weights: float [N], or [N, C] for labels, by which losses are multiplied. Outputs without any example (or, for
    labels, without any counterexample) have no finite optimum: they get weight 0 and the odds of half a sample.
    """

    def __init__(
        self,
        rows: Tensor,
        energy: Tensor,
        targets: Tensor,
        task: Task,
        outputs: int,
        *,
        basis: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        if len(rows) == 0:
            raise ValueError("a linear model needs at least one training row")
        self._rows, self._energy, self._task, self._outputs = rows, energy, task, outputs
        self._basis = basis
        self._slack = SLACK[rows.dtype]
        floor = -math.log(2 * len(rows))
        self._absent = torch.full((outputs,), floor, dtype=torch.float64, device=rows.device)
        if task == "multiclass":
            self._active = torch.bincount(targets, minlength=outputs) > 0
            index = self._active.long().cumsum(0) - 1
            self._targets = index[targets]
        elif task == "multilabel":
            positive = targets.sum(dim=0)
            self._active = (positive > 0) & (positive < len(rows))
            self._absent[positive >= len(rows)] = -floor
            self._targets = targets[:, self._active].float()
        else:
            self._active = torch.ones(1, dtype=torch.bool, device=rows.device)
            self._targets = targets.float().unsqueeze(1)
        if weights is not None:
            weights = weights.float()
            weights = weights.unsqueeze(1) if weights.ndim == 1 else weights[:, self._active]
        self._weights = weights

    def solve(self, strength: float, start: Linear | None = None, tolerance: float = LOOSE) -> Linear:
        """The optimum at a strength, to a share of `tolerance` of the objective.

        start: where to begin, of this problem or one with about the same rows and the same axes and classes.
        """
        width, outputs = len(self._energy), int(self._active.sum())
        parameters = torch.zeros(width + 1, outputs, dtype=torch.float64, device=self._rows.device)
        if start is not None:
            parameters[:-1] = start.weight[self._active].T
            parameters[-1] = start.bias[self._active]
        value, gradient, curvature = self._evaluate(parameters, strength)
        diagonal = torch.empty_like(parameters)
        diagonal[:-1] = torch.outer(self._energy, curvature) + strength
        diagonal[-1] = curvature * len(self._rows)

        def objective(point: Tensor) -> tuple[float, Tensor]:
            value, gradient, _ = self._evaluate(point, strength)
            return value, gradient

        penalty = torch.full_like(diagonal, strength)
        penalty[-1] = 0
        known = () if start is None else start.pairs
        pairs: Pairs = deque([(step, change + penalty * step) for step, change in known], MEMORY)
        best = minimise(objective, parameters, value, gradient, diagonal, tolerance, pairs, self._slack)
        return self._model(best, tuple((step, change - penalty * step) for step, change in pairs))

    def _model(self, parameters: Tensor, pairs: tuple[tuple[Tensor, Tensor], ...]) -> Linear:
        if self._task == "multiclass" and parameters.shape[1]:
            # softmax doesn't see a shift common to all classes; without it the likeliest logit is never below 0,
            # which keeps absent classes unlikely
            parameters = parameters - parameters.mean(dim=1, keepdim=True)
        weight = torch.zeros(self._outputs, len(self._energy), dtype=torch.float64, device=self._rows.device)
        bias = self._absent.clone()
        weight[self._active] = parameters[:-1].T
        bias[self._active] = parameters[-1]
        return Linear(weight, bias, pairs)

    def _evaluate(self, parameters: Tensor, strength: float) -> tuple[float, Tensor, Tensor]:
        """Objective, gradient [R + 1, C] and mean curvature of the loss per output [C].

        Products in the rows' precision, sums over chunks and everything of the parameters' size in float64.
        """
        weight = parameters[:-1] if self._basis is None else self._basis @ parameters[:-1]
        weight, bias = weight.to(self._rows.dtype), parameters[-1].to(self._rows.dtype)
        value = strength / 2 * float(parameters[:-1].square().sum())
        slopes = torch.zeros_like(parameters[:-1])  # as many as there are axes, which are all where there is a basis
        gradient = torch.empty_like(parameters)
        gradient[-1] = 0
        curvature = torch.zeros_like(parameters[0])
        loss_of = _LOSSES[self._task]
        at = 0
        for rows, targets in zip(chunks(self._rows), chunks(self._targets), strict=True):
            weights = None if self._weights is None else self._weights[at : at + len(rows)]
            at += len(rows)
            loss, slope, bend = loss_of(torch.addmm(bias, rows, weight).float(), targets, weights)
            value += loss
            if self._basis is None:
                slopes += rows.T @ slope.to(rows.dtype)
            else:  # many rows: this way round the product is faster
                slopes += (slope.to(rows.dtype).T @ rows).T
            gradient[-1] += slope.sum(dim=0, dtype=torch.float64)
            curvature += bend
        gradient[:-1] = slopes if self._basis is None else self._basis.T @ slopes
        gradient[:-1] += strength * parameters[:-1]
        return value, gradient, (curvature / len(self._rows)).clamp_min(1e-6)


def balancing(targets: Tensor, task: Task, outputs: int) -> Tensor:
    """Weights under which all classes of the targets count alike, or both answers of each label; their mean is 1.

    float [N] of `n / (classes * rows of the class)`, or [N, C] of `n / (2 * rows with this answer)`; classes without
    rows don't count. Raises ValueError for regression.
    """
    if task == "regression":
        raise ValueError("values have no classes to balance")
    n = len(targets)
    if task == "multiclass":
        counts = torch.bincount(targets, minlength=outputs)
        return (n / (int((counts > 0).sum()) * counts.clamp_min(1))).float()[targets]
    yes = targets > 0.5
    positive = yes.sum(dim=0)
    return torch.where(yes, n / (2 * positive.clamp_min(1)), n / (2 * (n - positive).clamp_min(1))).float()


def _softmax_loss(logits: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[float, Tensor, Tensor]:
    log_p = logits.log_softmax(dim=1)
    at = targets.unsqueeze(1)
    losses = log_p.gather(1, at)
    p = log_p.exp_()
    if weights is None:
        bend = p.sum(dim=0, dtype=torch.float64) - torch.linalg.vector_norm(p, dim=0).double().square()
        slope = p.scatter_add_(1, at, torch.full_like(at, -1, dtype=p.dtype))
    else:
        losses = losses * weights
        bend = (weights * p * (1 - p)).sum(dim=0, dtype=torch.float64)
        slope = p.scatter_add_(1, at, torch.full_like(at, -1, dtype=p.dtype)).mul_(weights)
    return -float(losses.sum(dtype=torch.float64)), slope, bend


def _sigmoid_loss(logits: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[float, Tensor, Tensor]:
    losses = F.binary_cross_entropy_with_logits(logits, targets, weights, reduction="none")
    p = logits.sigmoid()
    slope, bend = p - targets, p * (1 - p)
    if weights is not None:
        slope, bend = slope * weights, bend * weights
    return float(losses.sum(dtype=torch.float64)), slope, bend.sum(dim=0, dtype=torch.float64)


def _squared_loss(logits: Tensor, targets: Tensor, weights: Tensor | None) -> tuple[float, Tensor, Tensor]:
    error = logits - targets
    weights = torch.ones_like(error) if weights is None else weights
    bend = 2 * weights.sum(dim=0, dtype=torch.float64)
    return float((weights * error.square()).sum(dtype=torch.float64)), 2 * weights * error, bend


_LOSSES: dict[Task, Callable[[Tensor, Tensor, Tensor | None], tuple[float, Tensor, Tensor]]] = {
    "multiclass": _softmax_loss,
    "multilabel": _sigmoid_loss,
    "regression": _squared_loss,
}


def minimise(
    objective: Callable[[Tensor], tuple[float, Tensor]],
    point: Tensor,
    value: float,
    gradient: Tensor,
    diagonal: Tensor,
    tolerance: float,
    pairs: Pairs,
    slack: float,
) -> Tensor:
    """Minimise a smooth convex function by L-BFGS with a given diagonal as the first guess of its Hessian.

    point, value, gradient: where to start; pairs: what is known of the Hessian, extended in place; slack: share by
    which values may be wrong.

    Ends when half the squared gradient in that metric, which estimates what is left to gain, falls below
    `tolerance` of the value. The line search goes by slopes: in a convex function they say all, and unlike
    differences of values they stay exact near the optimum (Hager and Zhang, SIAM J. Optim. 2005).
    """
    for _ in range(MAX_ITERATIONS):
        if float((gradient.square() / diagonal).sum()) / 2 <= tolerance * value:
            break
        direction = -_two_loops(gradient, pairs, diagonal)
        found = _search(objective, point, value, gradient, direction, slack)
        if found is None:  # rounding hides the way down
            break
        step, value, new_gradient = found
        change = new_gradient - gradient
        if float((step * change).sum()) > 0:
            pairs.append((step, change))
        point, gradient = point + step, new_gradient
    return point


def _two_loops(gradient: Tensor, pairs: Pairs, diagonal: Tensor) -> Tensor:
    """The inverse Hessian's estimate times the gradient (Nocedal and Wright, algorithm 7.4)."""
    q = gradient.clone()
    products = [float((step * change).sum()) for step, change in pairs]
    weights = []
    for (step, change), product in zip(reversed(pairs), reversed(products), strict=True):
        weights.append(float((step * q).sum()) / product)
        q -= weights[-1] * change
    q /= diagonal
    if pairs:
        q *= products[-1] / float((pairs[-1][1].square() / diagonal).sum())
    for (step, change), product, weight in zip(pairs, products, reversed(weights), strict=True):
        q += (weight - float((change * q).sum()) / product) * step
    return q


def _search(
    objective: Callable[[Tensor], tuple[float, Tensor]],
    point: Tensor,
    value: float,
    gradient: Tensor,
    direction: Tensor,
    slack: float,
) -> tuple[Tensor, float, Tensor] | None:
    """A step along the direction with its value and gradient; None where none leads down."""
    slope = float((gradient * direction).sum())
    low, high, length = 0.0, math.inf, 1.0
    for _ in range(25):
        step = length * direction
        new_value, new_gradient = objective(point + step)
        new_slope = float((new_gradient * direction).sum())
        if not new_slope <= -0.5 * slope or not new_value <= value + slack * abs(value):
            high = length
        elif new_slope < 0.9 * slope:
            low = length
        else:
            return step, new_value, new_gradient
        length = (low + high) / 2 if high < math.inf else 2 * length
    return None
