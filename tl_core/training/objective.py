"""What training minimises: the head's loss, on softened targets and mixed samples where the config says so."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tl_core.config import TuneConfig
from tl_core.errors import UserError
from tl_core.training.mixing import Mixed
from tl_core.types import Head, Targets


class Objective:
    """The mean loss of a batch.

    Label smoothing (Szegedy et al., CVPR 2016, arXiv:1512.00567) moves its share of a target to the even distribution:
    over the classes, or over yes and no of each label. Raises UserError where there is no such distribution
    (regression), and where the head's loss takes no class probabilities.
    """

    def __init__(self, head: Head, targets: Targets, tune: TuneConfig) -> None:
        self._head, self._targets, self._smoothing = head, targets, tune.label_smoothing
        if self._smoothing == 0:
            return
        if targets.task == "regression":
            raise _smoothing_fault(tune, "the task is regression, and a number has no other classes; set it to 0")
        if targets.task == "multiclass" and not _takes_probabilities(head, targets.outputs):
            raise _smoothing_fault(
                tune,
                f"the loss of the head {type(head).__name__} takes no class probabilities; set it to 0, or use "
                "tune.head=linear",
            )

    def __call__(self, logits: Tensor, y: Tensor, mixed: Mixed | None = None) -> Tensor:
        """The mean loss, a scalar. logits: [B, C]; y: as `Head.loss` takes it; mixed: how the samples were mixed."""
        targets = self._softened(y)
        loss = self._head.loss(logits, targets)
        if mixed is None:
            return loss
        other = self._head.loss(logits, targets[mixed.order.to(targets.device)])
        return mixed.share * loss + (1 - mixed.share) * other

    def _softened(self, y: Tensor) -> Tensor:
        if self._smoothing == 0:
            return y
        if self._targets.task == "multilabel":
            return y * (1 - self._smoothing) + self._smoothing / 2
        classes = self._targets.outputs
        return F.one_hot(y, classes) * (1 - self._smoothing) + self._smoothing / classes  # [B] -> [B, C]


def _smoothing_fault(tune: TuneConfig, why: str) -> UserError:
    return UserError(f"config key 'tune.label_smoothing' can't be {tune.label_smoothing:g}: {why}")


@torch.no_grad()
def _takes_probabilities(head: Head, classes: int) -> bool:
    """Whether a sure distribution costs what its class costs, by the head's own loss."""
    parameter = next(head.parameters(), None)
    device = None if parameter is None else parameter.device
    y = torch.arange(2, device=device) % classes
    logits = torch.arange(2.0 * classes, device=device).sin().reshape(2, classes)  # no two alike
    try:
        by_probability = head.loss(logits, F.one_hot(y, classes).to(logits.dtype))
    except Exception:  # whatever a loss that wants indices makes of a matrix
        return False
    return bool(torch.isclose(by_probability, head.loss(logits, y), rtol=1e-4, atol=1e-6))
