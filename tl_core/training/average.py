"""The moving average of the weights in training (EMA), which is the model where it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn as moving_average


class Average:
    """The moving average of live tensors; counts and other integers are taken over as they are.

    Polyak & Juditsky 1992. The decay rises to its value as `(1 + n) / (10 + n)` over the updates, so that a short
    training is not held back by the weights that it started from.
    """

    def __init__(self, decay: float, live: Mapping[str, Tensor]) -> None:
        self.updates = 0
        self._decay, self._live = decay, dict(live)
        self.tensors = {name: tensor.clone() for name, tensor in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the live tensors as they are now."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        floats = [name for name, tensor in self._live.items() if tensor.is_floating_point()]
        if floats:
            move = moving_average(decay)  # type: ignore[no-untyped-call]
            move([self.tensors[name] for name in floats], [self._live[name] for name in floats], None)
        for name in self.tensors.keys() - set(floats):
            self.tensors[name].copy_(self._live[name])

    @contextmanager
    @torch.no_grad()
    def swapped_in(self) -> Iterator[None]:
        """The live tensors hold the average while inside."""
        kept = {name: tensor.clone() for name, tensor in self._live.items()}
        put(self.tensors, self._live)
        try:
            yield
        finally:
            put(kept, self._live)


@torch.no_grad()
def put(values: Mapping[str, Tensor], into: Mapping[str, Tensor]) -> None:
    """Copy values into the tensors of these names, which keep their device and memory format."""
    for name, tensor in into.items():
        tensor.copy_(values[name])
