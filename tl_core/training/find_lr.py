"""The learning-rate range test: a short run whose rate rises until the loss breaks out, and the rate that it suggests.

Smith, "Cyclical learning rates for training neural networks", WACV 2017, arXiv:1506.01186. The curve is read as in
fastai (Howard and Gugger, Information 2020, arXiv:2002.04688): where the loss falls most steeply over the logarithm of
the rate, here by lines through neighbouring points, which noise moves less than single differences.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tl_core.errors import UserError
from tl_core.progress import progress
from tl_core.types import Prepared

LOWEST, HIGHEST = 1e-7, 1.0  # of the backbone's rate: what any network has been fine-tuned at, and what breaks all
STEPS = 100
NEIGHBOURS = 5  # points on either side that a slope is taken over
FEWEST = 2 * NEIGHBOURS + 1  # points: with fewer, there is no slope to go by
BREAKS_OUT = 4.0  # times the lowest smoothed loss
NEXT_TO_NOTHING = 0.25  # a loss: what the probe leaves may be tiny, and four times that as well
SMOOTHING = 0.9  # weight of the past in the moving average; its start is corrected for


class Trains(Protocol):
    """What the test needs of a training: an optimizer with a rate per group, and a step at these rates."""

    optimizer: torch.optim.Optimizer

    def step(self, prepared: Sequence[Prepared], y: Tensor, at: tuple[int, int]) -> float:
        """One update; the batch's loss before it, nan and no update where that is not finite."""


@dataclass(frozen=True)
class FoundLr:
    """The suggested rate of the backbone, and the points [rate, smoothed loss] that it was read from."""

    lr: float
    points: list[tuple[float, float]]

    def facts(self) -> dict[str, object]:
        """As tune.json has it."""
        return {"lr": self.lr, "points": [list(point) for point in self.points]}


def find_lr(
    training: Trains,
    batches: Iterable[tuple[Sequence[Prepared], Tensor]],
    modules: Sequence[nn.Module],
    lr: float,
    *,
    steps: int = STEPS,
) -> FoundLr:
    """The rate at which the loss falls fastest, by at most `steps` updates with rates that rise exponentially.

    lr: the backbone's rate in the settings; every group of the optimizer keeps its proportion to it, so that the head's
    rate is found along with it. batches: (prepared samples, targets), as many as are asked for. modules: what the
    updates change. Weights, buffers and the optimizer's state and rates are afterwards as they were before.
    Raises UserError where the loss breaks out before there are points enough.
    """
    rates = [float(group["lr"]) for group in training.optimizer.param_groups]
    kept = [copy.deepcopy(module.state_dict()) for module in modules]
    kept_optimizer = copy.deepcopy(training.optimizer.state_dict())
    try:
        losses = _rising(training, batches, rates, lr, steps)
    finally:
        for module, state in zip(modules, kept, strict=True):
            module.load_state_dict(state)
        training.optimizer.load_state_dict(kept_optimizer)
    points = list(zip(_rates(steps)[: len(losses)], losses, strict=True))
    return FoundLr(suggested(points), points)


def _rates(steps: int) -> list[float]:
    """Rates from LOWEST to HIGHEST, three digits each: the report shows them."""
    return [float(f"{rate:.3g}") for rate in np.geomspace(LOWEST, HIGHEST, steps)]


def _rising(
    training: Trains,
    batches: Iterable[tuple[Sequence[Prepared], Tensor]],
    rates: Sequence[float],
    lr: float,
    steps: int,
) -> list[float]:
    """Smoothed losses by step until the loss breaks out."""
    smooth: list[float] = []
    average = 0.0
    with progress(steps, "find lr", unit="batch") as bar:
        for number, (rate, (prepared, y)) in enumerate(zip(_rates(steps), batches)):
            for group, own in zip(training.optimizer.param_groups, rates, strict=True):
                group["lr"] = own * rate / lr
            loss = training.step(prepared, y, (0, number))
            if not math.isfinite(loss):
                break
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            smooth.append(average / (1 - SMOOTHING ** (number + 1)))
            bar.update()
            if smooth[-1] > BREAKS_OUT * max(min(smooth), NEXT_TO_NOTHING):
                break
    return smooth


def suggested(points: Sequence[tuple[float, float]]) -> float:
    """The rate that the curve of (rate, smoothed loss) suggests: one of its points'.

    Where the loss falls nowhere, as from a start that fits the rows already, a tenth of the rate at which it is lowest.
    Raises UserError on too few points.
    """
    if len(points) < FEWEST:
        raise UserError(
            f"config key 'tune.find_lr' can't be true: the loss breaks out after {len(points)} updates, before a rate "
            "can be told; set it to false, and tune.lr by hand"
        )
    rate, loss = np.log([rate for rate, _ in points]), np.array([loss for _, loss in points])
    middle = range(NEIGHBOURS, len(points) - NEIGHBOURS)
    slopes = [float(np.polyfit(rate[i - NEIGHBOURS :][:FEWEST], loss[i - NEIGHBOURS :][:FEWEST], 1)[0]) for i in middle]
    steepest = int(np.argmin(slopes))
    if slopes[steepest] < 0:
        return points[middle[steepest]][0]
    tenth = rate[int(np.argmin(loss))] - math.log(10)
    return points[int(np.abs(rate - tenth).argmin())][0]
