"""The learning rate's course: a share of its peak at every step."""

from __future__ import annotations

import math

from tl_core.config import TuneConfig

EPOCHS = 10
UPDATES = 200  # at least: with fewer, accuracy on 8 to 16 rows a class was below the probe's


def epochs_of(tune: TuneConfig, rows: int) -> int:
    """Passes over so many training rows: `tune.epochs`, or what auto means for them."""
    if tune.epochs != "auto":
        return tune.epochs
    updates = -(-rows // tune.batch_size)  # of an epoch
    return max(EPOCHS, -(-UPDATES // max(1, updates)))


def share(tune: TuneConfig, step: int, total: int) -> float:
    """Share of the peak learning rate at a step (counted from 0) of `total`.

    Linear over the first `tune.warmup` of the steps, at least one; then `tune.schedule`: constant, or down to zero in a
    line or half a cosine.
    """
    rising = max(1, round(tune.warmup * total))
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, total - rising)
    if tune.schedule == "constant":
        return 1.0
    return 1 - done if tune.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
