"""Batch-norm statistics of a network that starts from random weights."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.modules.batchnorm import _NormBase

from tl_core.training.drawing import even_batches
from tl_core.types import Backbone

if TYPE_CHECKING:
    from tl_core.training.sources import Source

BATCH = 32


@torch.no_grad()
def measure_norms(source: Source, backbone: Backbone, rows: np.ndarray) -> None:
    """Give a random network's batch-norms the statistics of these manifest rows; it comes back in eval mode.

    source: of raw samples. Training scales its head by the embeddings that the network gives before the first step:
    with the statistics that a batch-norm is born with (0 and 1) that scale is far off.
    """
    norms = [module for module in backbone.modules() if isinstance(module, _NormBase) and module.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    device = next((parameter.device for parameter in backbone.parameters()), torch.device("cpu"))
    with closing(source.batches(even_batches(rows, BATCH))) as stream:
        for _, prepared in stream:
            for _, state, owner in source.collate(prepared):
                if len(owner) > 1:  # a single window has no statistics
                    backbone({key: value.to(device) for key, value in state.items()})
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    backbone.eval()
