"""Trials of the probe from stored embeddings: rows are turned once, and every trial is one short solve."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from tl_core.heads import RegressionHead
from tl_core.linear_path import LOOSE, Linear, LinearProblem, balancing, moments, rotate
from tl_core.training.probe import probed
from tl_core.training.search_space import STRENGTHS
from tl_core.training.standardise import standardise
from tl_core.watch import watch_metric

if TYPE_CHECKING:
    from tl_core.training.job import Job


PER_DECADE = 4  # strengths of the path


class ProbeTrials:
    """What a strength and a balance reach on validation, by a solution that is good enough to compare by.

    A path over all strengths is solved first, and every trial starts between the two solutions next to it, which is
    mostly near enough at once. So what a trial says depends on its own settings alone, and not on the trials before it.
    Raises UserError on a head that is not linear.
    """

    def __init__(self, job: Job) -> None:
        self._spec, targets = job.head_spec, job.task
        x = job.features(job.train)
        y, self._truth = job.targets(job.train), job.targets(job.val)
        self._head = probed(job.head(x.shape[1]), targets)
        mean, scale = moments(x)
        standardise(self._head, mean, scale, y)
        if isinstance(self._head, RegressionHead):
            y = (y - self._head.centre) / self._head.spread
        self._turned = rotate(x, mean, scale)
        self._rows = ((job.features(job.val) - mean) / scale) @ self._turned.basis.float()  # [N, D] -> [N, R]
        self._y, self._task, self._outputs = y, targets.task, targets.outputs
        low, high = (math.log(strength) for strength in STRENGTHS)
        steps = math.ceil((high - low) / math.log(10) * PER_DECADE)
        self._logs = [high + (low - high) * k / steps for k in range(steps + 1)]  # from strong to weak
        self._paths: dict[bool, list[Linear]] = {}

    def __call__(self, settings: dict[str, Any]) -> tuple[float, float]:
        """(watched metric, mean loss) on the validation rows under `strength` and `balance`."""
        strength, balance = settings["strength"], settings.get("balance", False)
        return self._judged(self._problem(balance).solve(strength, self._between(strength, balance), LOOSE))

    def _between(self, strength: float, balance: bool) -> Linear:
        """The line through the path's two nearest solutions, over the logarithm of the strength."""
        path = self._path(balance)
        at = (self._logs[0] - math.log(strength)) / (self._logs[0] - self._logs[1])
        left = min(len(path) - 2, max(0, math.floor(at)))
        one, other, share = path[left], path[left + 1], at - left
        return Linear(torch.lerp(one.weight, other.weight, share), torch.lerp(one.bias, other.bias, share))

    def _path(self, balance: bool) -> list[Linear]:
        if balance not in self._paths:
            problem, model = self._problem(balance), None
            self._paths[balance] = [model := problem.solve(math.exp(log), model, LOOSE) for log in self._logs]
        return self._paths[balance]

    def _problem(self, balance: bool) -> LinearProblem:
        """A problem that remembers nothing of other solves."""
        weights = balancing(self._y, self._task, self._outputs) if balance else None
        return LinearProblem(
            self._turned.rows, self._turned.energy, self._y, self._task, self._outputs, weights=weights
        )

    @torch.no_grad()
    def _judged(self, model: Linear) -> tuple[float, float]:
        logits = torch.addmm(model.bias.float(), self._rows, model.weight.float().T)
        decoded = self._head.decode(logits).numpy()
        value = watch_metric(self._task, decoded, self._truth.numpy(), self._spec.watch)
        return value, float(self._head.loss(logits, self._truth))
