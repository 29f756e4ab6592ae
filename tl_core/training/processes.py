"""The processes that train together: those of `accelerate launch`, or this one alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tl_core.errors import UserError


@dataclass(frozen=True)
class Processes:
    """This process among those that train one model together; each of them holds the whole model.

    index, count: which one of how many; device: where it computes.
    """

    index: int
    count: int
    device: torch.device

    @property
    def main(self) -> bool:
        """True for the one process that writes files and shows progress."""
        return self.index == 0

    def share(self, rows: np.ndarray) -> np.ndarray:
        """This process's part of rows: of all processes in order they are the rows again."""
        return np.array_split(rows, self.count)[self.index]

    @torch.no_grad()
    def mean(self, tensors: Sequence[Tensor], weight: float) -> None:
        """Replace tensors, float32 on the device, by their weighted means over the processes: the same bits in all."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        own = [torch.tensor([weight], device=self.device), *(tensor.reshape(-1) * weight for tensor in tensors)]
        flat = reduce(torch.cat(own), "sum")
        means = (flat[1:] / flat[0]).split([tensor.numel() for tensor in tensors])
        for tensor, value in zip(tensors, means, strict=True):
            tensor.copy_(value.view_as(tensor))

    def joined(self, rows: Tensor, total: int) -> Tensor:
        """The rows [n, ...] of all processes, each of which has its share() of them, as one tensor [total, ...]."""
        if self.count == 1:
            return rows
        from accelerate.utils import reduce

        whole = rows.new_zeros(total, *rows.shape[1:])
        whole[torch.from_numpy(self.share(np.arange(total))).to(rows.device)] = rows
        joined: Tensor = reduce(whole, "sum")
        return joined

    def any(self, flag: bool) -> bool:
        """Whether it is so in any of the processes."""
        if self.count == 1:
            return flag
        from accelerate.utils import reduce

        return bool(reduce(torch.tensor([float(flag)], device=self.device), "sum") > 0)

    def agreed(self, number: float) -> float:
        """The main process's number in all of them: what each measures for itself differs."""
        if self.count == 1:
            return number
        from accelerate.utils import reduce

        return float(reduce(torch.tensor([number if self.main else 0.0], device=self.device), "sum"))

    def wait(self) -> None:
        """Go on once all processes have come here."""
        self.any(False)


def processes(device: torch.device) -> Processes:
    """The processes that were launched together, and this one's device of that kind; alone, the device itself.

    Raises UserError where several were launched and accelerate is not installed, and where the launch computes on
    another kind of device.
    """
    try:
        from accelerate.state import PartialState
    except ImportError as error:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                "several processes that train together need accelerate: pip install 'tl-core[tune]'"
            ) from error
        return Processes(0, 1, device)

    state = PartialState(cpu=device.type == "cpu")
    if state.num_processes == 1:
        return Processes(0, 1, device)
    if state.device.type != device.type:
        raise UserError(
            f"these processes were launched to compute on {state.device.type}, but extract.device asks for "
            f"{device.type}; set extract.device to {state.device.type}, or launch with other settings (accelerate "
            "launch --cpu)"
        )
    return Processes(state.process_index, state.num_processes, state.device)
