"""Linear models under an L2 penalty, solved exactly and fast over a path of strengths.

The objective is `sum of losses + strength / 2 * ||W||^2` with a free bias: cross-entropy (multiclass), binary
cross-entropy per label (multilabel) or squared error (regression). Features are turned onto their principal axes
first. A rotation changes neither the penalty nor the optimum, but there the Hessian is nearly diagonal, so that
L-BFGS with that diagonal as its first guess needs a handful of passes per strength; for squared error the
diagonal is the Hessian and the first step the closed-form ridge solution, at every strength from one
eigendecomposition. With fewer rows than features the rotated problem is only as wide as there are rows.
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

CHUNK = 4096  # rows per pass: logits stay in the cache
SMALL_MATRIX = 1024  # rows and columns


@dataclass(frozen=True)
class Linear:
    """weight [C, D] and bias [C], float64."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Rotated:
    """Rows on their principal axes.

    rows: float32 [N, R]; energy: float64 [R], sum of squares along each axis; basis: float64 [D, R], orthonormal.
    """

    rows: Tensor
    energy: Tensor
    basis: Tensor

    def to_axes(self, model: Linear) -> Linear:
        """A model of the unrotated features, as one of the rotated ones."""
        return Linear(model.weight @ self.basis, model.bias)

    def from_axes(self, model: Linear) -> Linear:
        """A model of the rotated features, as one of the unrotated ones."""
        return Linear(model.weight @ self.basis.T, model.bias)


def chunks(x: Tensor) -> Iterator[Tensor]:
    """Views of successive rows, few enough for the cache."""
    return (x[at : at + CHUNK] for at in range(0, len(x), CHUNK))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and scale (standard deviation, 1 for constant columns) of features [N, D]: float32 [D] each."""
    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for part in chunks(x):
        total += part.double().sum(dim=0)
    mean = total / len(x)
    squares = torch.zeros_like(total)
    for part in chunks(x):
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


def _finite(x: Tensor) -> Tensor:
    bad = sum(int((~torch.isfinite(part)).any(dim=1).sum().item()) for part in chunks(x))
    if bad:
        raise ValueError(f"{bad} of {len(x)} feature rows hold NaN or infinity")
    return x


class LinearProblem:
    """One fit: rotated rows, their targets and the outputs that can be learnt from them.

    rows: float32 [N, R]; energy: float64 [R] over these rows (an estimate will do, it only steers the solver);
    targets: int64 [N], multi-hot float [N, C] or float [N]. Outputs without any example (or, for labels, without
    any counterexample) have no finite optimum: they get weight 0 and the odds of half a sample.
    """

    def __init__(self, rows: Tensor, energy: Tensor, targets: Tensor, task: Task, outputs: int) -> None:
        if len(rows) == 0:
            raise ValueError("a linear model needs at least one training row")
        self._rows, self._energy, self._task, self._outputs = rows, energy, task, outputs
        floor = -math.log(2 * len(rows))
        self._pairs: list[tuple[Tensor, Tensor]] = []  # what the last solve learnt of the loss's curvature
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

    def solve(self, strength: float, start: Linear | None = None, tolerance: float = LOOSE) -> Linear:
        """The optimum at a strength, to a share of `tolerance` of the objective; from `start` where given."""
        width, outputs = self._rows.shape[1], int(self._active.sum())
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
        pairs = deque([(step, change + penalty * step) for step, change in self._pairs], MEMORY)
        best = minimise(objective, parameters, value, gradient, diagonal, tolerance, pairs)
        self._pairs = [(step, change - penalty * step) for step, change in pairs]
        return self._model(best)

    def _model(self, parameters: Tensor) -> Linear:
        if self._task == "multiclass" and parameters.shape[1]:
            # softmax doesn't see a shift common to all classes; without it the likeliest logit is never below 0,
            # which keeps absent classes unlikely
            parameters = parameters - parameters.mean(dim=1, keepdim=True)
        weight = torch.zeros(self._outputs, self._rows.shape[1], dtype=torch.float64, device=self._rows.device)
        bias = self._absent.clone()
        weight[self._active] = parameters[:-1].T
        bias[self._active] = parameters[-1]
        return Linear(weight, bias)

    def _evaluate(self, parameters: Tensor, strength: float) -> tuple[float, Tensor, Tensor]:
        """Objective, gradient [R + 1, C] and mean curvature of the loss per output [C].

        Products in float32, sums over chunks and everything of the parameters' size in float64.
        """
        weight, bias = parameters[:-1].float(), parameters[-1].float()
        value = strength / 2 * float(parameters[:-1].square().sum())
        gradient = torch.zeros_like(parameters)
        curvature = torch.zeros_like(parameters[0])
        for rows, targets in zip(chunks(self._rows), chunks(self._targets), strict=True):
            loss, slope, bend = _LOSSES[self._task](torch.addmm(bias, rows, weight), targets)
            value += loss
            gradient[:-1] += rows.T @ slope
            gradient[-1] += slope.sum(dim=0, dtype=torch.float64)
            curvature += bend
        gradient[:-1] += strength * parameters[:-1]
        return value, gradient, (curvature / len(self._rows)).clamp_min(1e-6)


def _softmax_loss(logits: Tensor, targets: Tensor) -> tuple[float, Tensor, Tensor]:
    log_p = logits.log_softmax(dim=1)
    at = targets.unsqueeze(1)
    loss = -float(log_p.gather(1, at).sum(dtype=torch.float64))
    p = log_p.exp_()
    bend = p.sum(dim=0, dtype=torch.float64) - torch.linalg.vector_norm(p, dim=0).double().square()
    return loss, p.scatter_add_(1, at, torch.full_like(at, -1, dtype=p.dtype)), bend


def _sigmoid_loss(logits: Tensor, targets: Tensor) -> tuple[float, Tensor, Tensor]:
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dtype=torch.float64)
    p = logits.sigmoid()
    return float(loss), p - targets, (p * (1 - p)).sum(dim=0, dtype=torch.float64)


def _squared_loss(logits: Tensor, targets: Tensor) -> tuple[float, Tensor, Tensor]:
    error = logits - targets
    bend = torch.full((1,), 2.0 * len(logits), dtype=torch.float64, device=logits.device)
    return float(error.square().sum(dtype=torch.float64)), 2 * error, bend


_LOSSES: dict[Task, Callable[[Tensor, Tensor], tuple[float, Tensor, Tensor]]] = {
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
) -> Tensor:
    """Minimise a smooth convex function by L-BFGS with a given diagonal as the first guess of its Hessian.

    point, value, gradient: where to start; pairs: what is known of the Hessian, extended in place.

    Ends when half the squared gradient in that metric, which estimates what is left to gain, falls below
    `tolerance` of the value. The line search goes by slopes: in a convex function they say all, and unlike
    differences of values they stay exact near the optimum (Hager and Zhang, SIAM J. Optim. 2005).
    """
    for _ in range(MAX_ITERATIONS):
        if float((gradient.square() / diagonal).sum()) / 2 <= tolerance * value:
            break
        direction = -_two_loops(gradient, pairs, diagonal)
        found = _search(objective, point, value, gradient, direction)
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
) -> tuple[Tensor, float, Tensor] | None:
    """A step along the direction with its value and gradient; None where none leads down."""
    slope = float((gradient * direction).sum())
    low, high, length = 0.0, math.inf, 1.0
    for _ in range(25):
        step = length * direction
        new_value, new_gradient = objective(point + step)
        new_slope = float((new_gradient * direction).sum())
        # 1e-7: float32 losses can't tell values that are nearer to each other
        if not new_slope <= -0.5 * slope or not new_value <= value + 1e-7 * abs(value):
            high = length
        elif new_slope < 0.9 * slope:
            low = length
        else:
            return step, new_value, new_gradient
        length = (low + high) / 2 if high < math.inf else 2 * length
    return None
