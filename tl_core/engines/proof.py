"""An engine's proof: it gives what torch gives in float32, on batches unlike the one that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from tl_core.engines.tolerance import disagreement
from tl_core.types import State

Forward = Callable[[State], State]


def differs(forward: Forward, reference: Forward, batches: Iterable[State], precision: str) -> str | None:
    """In what an engine differs from the reference on these batches, row by row; None where it does not."""
    for batch in batches:
        expected, found = reference(batch), forward(batch)
        if expected.keys() != found.keys():
            return f"gives {', '.join(sorted(found))} instead of {', '.join(sorted(expected))}"
        for key, tensor in expected.items():
            if tensor.shape != found[key].shape:
                return f"gives shape {list(found[key].shape)} instead of {list(tensor.shape)}"
            for a, b in zip(tensor.numpy(), found[key].numpy(), strict=True):
                why = disagreement(a.ravel(), b.ravel(), precision) if tensor.is_floating_point() else _unequal(a, b)
                if why:
                    return f"gives other values ({why})"
    return None


def _unequal(a: np.ndarray, b: np.ndarray) -> str | None:
    return None if np.array_equal(a, b) else "of integers"


def unlike(batch: State, rows: int) -> State:
    """A batch of so many rows, made of the first of another by turning its `x` further with each."""

    def made(key: str, tensor: Tensor) -> Tensor:
        turned = [torch.roll(tensor[0], i, -1) if key == "x" and tensor.ndim > 1 else tensor[0] for i in range(rows)]
        return torch.stack(turned)

    return {key: made(key, tensor) for key, tensor in batch.items()}


def other_lengths(forward: Forward, batch: State) -> dict[int, State]:
    """Lengths in a batch (the batch axis aside) that the network takes otherwise too, with such a batch for each.

    Axes of one length in one batch (tokens and their mask) belong together.
    """
    lengths = {size for tensor in batch.values() for size in tensor.shape[1:] if size > 1}
    found = {}
    for length in sorted(lengths):
        for other in (length // 2, 2 * length):
            resized = {key: _resized(tensor, length, other) for key, tensor in batch.items()}
            try:
                forward(resized)
            except Exception:  # whatever a network raises at a length that it does not take
                continue
            found[length] = resized
            break
    return found


def _resized(tensor: Tensor, length: int, other: int) -> Tensor:
    """Each axis of one length cut, or gone through again from its start, to another."""
    for axis, size in enumerate(tensor.shape):
        if axis and size == length:
            tensor = tensor.index_select(axis, torch.arange(other) % length)
    return tensor
