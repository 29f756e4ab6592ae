"""Embeddings without the store: prepared samples through the reference engine, and their differentiable twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from tl_core.engines import TorchEngine
from tl_core.extraction.rows import DTYPES, embedding
from tl_core.extraction.windows import Windows
from tl_core.types import Backbone, Prepared, State

MOST_PADDING = 0.5  # of a batch in training


def embed(backbone: Backbone, samples: Sequence[Prepared], device: torch.device, precision: str) -> Tensor:
    """Embeddings of prepared samples by the torch engine, float32 [N, D] on the CPU, rounded as the store would.

    Moves the backbone to the device and into eval mode. Windows are computed by bucket in batches of fixed shape; a
    sample's row is the mean over its windows.
    """
    stop = len(backbone.segments)
    windows = Windows(backbone, TorchEngine(backbone, stop, device, precision), stop)
    rows = {key: embedding(outputs) for key, outputs in windows.through(enumerate(samples))}
    if not rows:
        return torch.zeros(0, backbone.feature_dim)
    result = torch.stack([rows[i] for i in range(len(samples))])
    return result.half().float() if DTYPES[precision] == np.float16 else result


def collate_samples(backbone: Backbone, prepared: Sequence[Prepared]) -> list[tuple[int, State, Tensor]]:
    """Samples as batches for training: (bucket, batch, owner of each of its windows, int64), by bucket.

    A bucket's windows come in one batch, as many as there are: gradients should not see windows twice.
    """
    return [
        (bucket, backbone.collate([w for w, _ in items]), torch.tensor([owner for _, owner in items]))
        for bucket, items in by_bucket(backbone, prepared, backbone.bucket)
    ]


def by_bucket(
    backbone: Backbone, prepared: Sequence[Prepared], bucket_of: Callable[[State], int]
) -> list[tuple[int, list[tuple[State, int]]]]:
    """The samples' windows, each with its owner, by bucket; where padding is masked, with those of the next narrower.

    So they are joined as long as at most half of a batch is padding: a network computes few wide batches quicker than
    many narrow ones, and all the more so backwards.
    """
    buckets: dict[int, list[tuple[State, int]]] = {}
    for owner, sample in enumerate(prepared):
        for window in sample.windows:
            buckets.setdefault(bucket_of(window), []).append((window, owner))
    groups: list[tuple[int, list[tuple[State, int]]]] = []
    filled = 0  # places of the last group that are no padding
    for bucket, items in sorted(buckets.items(), reverse=True):
        if backbone.padded and groups:
            widest, group = groups[-1]
            filled += bucket * len(items)
            if filled >= (1 - MOST_PADDING) * widest * (len(group) + len(items)):
                group += items
                continue
        filled = bucket * len(items)
        groups.append((bucket, items))
    return groups[::-1]
