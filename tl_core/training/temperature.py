"""One number that makes a head as sure as it is right: its logits are divided by a temperature found on validation.

Guo et al., "On calibration of modern neural networks", ICML 2017, arXiv:1706.04599. Dividing logits by a number above
0 changes no order: neither the likeliest class nor which labels lie above a half.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_core.heads import LinearHead, RegressionHead
from tl_core.types import Task

LEAST, MOST = 0.05, 20.0
PRIOR_ROWS = 5.0  # so few validation rows, all right, say next to nothing; a hundred speak for themselves
HALVINGS = 32  # of the range of log b: to eight digits, of which six are told


def temperature(logits: Tensor, y: Tensor, task: Task) -> float | None:
    """What to divide logits by for the best likelihood on rows the head has not learnt from; None for regression.

    logits: float [N, C]; y: int64 [N] (multiclass) or multi-hot [N, C] (multilabel). Between 0.05 and 20. A prior
    around 1, worth five rows, keeps few rows, or rows that are all right, from making the head sure of everything:
    `5 (b - 1 - log b)` is added to the sum of the losses, b = 1 / temperature (a gamma density of b). With it the sum
    stays convex in b, and since it is 0 at b = 1, the rows' likelihood is never worse than undivided.
    Raises ValueError on logits that aren't finite.
    """
    if task == "regression":
        return None
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("logits that aren't finite have no temperature")
    z = logits.double()
    slope = _multiclass_slope(z, y) if task == "multiclass" else _multilabel_slope(z, y)
    low, high = 1 / MOST, 1 / LEAST
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        if slope(middle) + PRIOR_ROWS * (1 - 1 / middle) > 0:
            high = middle
        else:
            low = middle
    return round(1 / math.sqrt(low * high), 6)


def folded(head: LinearHead, temperature: float) -> LinearHead:
    """A copy of a classifying head whose weight and bias are divided by a temperature, as its logits then are."""
    if isinstance(head, RegressionHead):
        raise ValueError("a regression head has no temperature")
    cooled = copy.deepcopy(head)
    with torch.no_grad():
        cooled.linear.weight.div_(temperature)
        cooled.linear.bias.div_(temperature)
    return cooled


def _multiclass_slope(z: Tensor, y: Tensor) -> Callable[[float], float]:
    """The derivative by b of the cross-entropies' sum of logits `b z`."""
    z = z - z.gather(1, y.unsqueeze(1))  # [N, C]: 0 at the true class, so that nothing large cancels
    return lambda b: float(((b * z).softmax(dim=1) * z).sum())


def _multilabel_slope(z: Tensor, y: Tensor) -> Callable[[float], float]:
    """The derivative by b of the sum over rows of the labels' mean loss, so that a row counts as one."""
    margin = (1 - 2 * y.double()) * z  # [N, C]: above 0 where the label is wrong
    return lambda b: float((F.sigmoid(b * margin) * margin).mean(dim=1).sum())
