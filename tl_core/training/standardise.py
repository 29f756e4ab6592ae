"""Setting a head's fixed buffers from the training rows."""

from __future__ import annotations

from torch import Tensor

from tl_core.heads import LinearHead, RegressionHead
from tl_core.types import Head


def standardise(head: Head, mean: Tensor, scale: Tensor, targets: Tensor) -> None:
    """Give a linear head the features' mean and scale [D], and a regression head the targets' centre and spread.

    Other heads stay as they are: they bring what they need.
    """
    if isinstance(head, LinearHead):
        head.mean.copy_(mean)
        head.scale.copy_(scale)
    if isinstance(head, RegressionHead):
        values = targets.double()
        spread = float(values.std(correction=0))
        head.centre.fill_(float(values.mean()))
        head.spread.fill_(spread if spread > 0 else 1.0)
