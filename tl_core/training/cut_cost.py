"""What storing the states of a frozen prefix costs and saves: bytes and FLOPs, never a timing."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tl_core.extraction import DTYPES
from tl_core.types import Backbone, Prepared

# What a device computes in the time that it takes to move a byte of a stored row, in FLOPs. Reading is the checksum,
# the way into float32 and into a batch; writing is the disk's. On two CPU cores a row of ResNet-50 before layer4
# (401 kB) takes 4 ms of one to read, in which training does 0.24 GFLOP in bfloat16 and a third of that in float32.
# Against measured epochs of ResNet-50 and ViT-S the saving comes out right or too small. The numbers for GPUs are not
# measured, but estimated from 1.5 GB/s and 30 or 90 TFLOP/s.
READ = {"cpu": {"float32": 150.0, "bfloat16": 500.0}, "cuda": {"float32": 2e4, "bfloat16": 6e4}}
WRITE = {"cpu": {"float32": 300.0, "bfloat16": 1000.0}, "cuda": {"float32": 4e4, "bfloat16": 1.2e5}}

WORTH = 0.8  # of the work without stored states: a smaller gain is not worth the disk
BACKWARD = 3.0  # forward and backward of a trained segment, in forwards
MARGIN = 1 << 30  # bytes that must stay free on the disk
SLACK = 1.1  # samples of a ragged backbone are of other lengths than those that were measured


@dataclass(frozen=True)
class RowCost:
    """What one sample costs on average. stored: bytes of its state at the cut; prefix, suffix: FLOPs of a forward."""

    stored: float
    prefix: float
    suffix: float


@dataclass(frozen=True)
class Work:
    """A training run: its rows, how many states it would store in all, and its epochs."""

    train: int
    val: int
    states: int
    epochs: int

    @property
    def passes(self) -> int:
        """Rows that go through the network in all epochs."""
        return self.epochs * (self.train + self.val)


def row_cost(
    backbone: Backbone, samples: Sequence[Prepared], start: int, precision: str, device: torch.device
) -> RowCost | None:
    """The mean cost of some samples; None where the network's operations can't be counted.

    Moves the backbone to the device and into eval mode.
    """
    from torch.utils.flop_counter import FlopCounterMode

    backbone.to(device).eval()
    stored = prefix = total = 0.0
    windows = [window for sample in samples for window in sample.windows]
    with torch.no_grad():
        for window in windows:
            state = {key: tensor.to(device) for key, tensor in backbone.collate([window]).items()}
            try:
                with FlopCounterMode(display=False) as counter:
                    state = backbone(state, 0, start)
                    prefix += counter.get_total_flops()
                    row = backbone.boundary_rows(state, [window])[0]
                    backbone(state, start)
                    total += counter.get_total_flops()
            except Exception:  # whatever a stranger's network makes of being watched; its own faults show in training
                return None
            width = DTYPES[precision].itemsize
            stored += sum(
                tensor.numel() * (width if tensor.is_floating_point() else tensor.element_size())
                for tensor in row.values()
            )
    n = len(samples)
    return RowCost(stored / n, prefix / n, (total - prefix) / n) if total else None


def remaining_work(cost: RowCost, work: Work, device: str, precision: str) -> float:
    """The work of training from stored states, filling the store included, as a share of the work without them.

    Counted as if nothing were stored yet, so that a rerun decides alike. Decoding is left out: it depends on the files,
    and is saved on top.
    """
    suffix = cost.suffix * work.epochs * (BACKWARD * work.train + work.val)
    without = cost.prefix * work.passes + suffix
    filling = work.states * (cost.prefix + cost.stored * WRITE[device][precision])
    reading = work.passes * cost.stored * READ[device][precision]
    return (filling + reading + suffix) / without


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder that may not be there yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def size_text(size: float) -> str:
    """Bytes in words: `45 MB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} bytes"
