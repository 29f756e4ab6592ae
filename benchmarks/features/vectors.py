"""A modality that costs next to nothing, so that the memory of many samples can be watched: lines to vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from tl_core.types import Backbone, Identity, Loader, Prepared, Source, State

WIDTH, DIM = 1 << 14, 384  # 64 KiB a decoded sample, so that samples held too long would show


class VectorLoader(Loader):
    """A line of text to float32 [WIDTH], filled with a pattern of its bytes."""

    modality: ClassVar[str] = "vectors"
    extensions: ClassVar[frozenset[str]] = frozenset({".vector"})
    inline: ClassVar[bool] = True

    def decode(self, source: Source) -> np.ndarray:
        return np.resize(np.frombuffer(str(source).encode(), np.uint8), WIDTH).astype(np.float32) / 255

    def render(self, source: Source) -> str:
        return str(source)


class VectorBackbone(Backbone):
    """A linear layer over a few of the numbers, in two segments."""

    def prepare(self, decoded: Any) -> Prepared:
        return Prepared(({"x": torch.from_numpy(decoded)},))

    def collate(self, windows: Sequence[State]) -> State:
        return {"x": torch.stack([window["x"] for window in windows])}

    def batch_size(self, bucket: int) -> int:
        return 32


class _Take(nn.Module):
    def forward(self, state: State) -> State:
        return {"x": state["x"][:, :DIM]}


class _Project(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(DIM, DIM)

    def forward(self, state: State) -> State:
        return {"x": self.layer(state["x"])}


def vector_backbone() -> VectorBackbone:
    """The network with the same random weights each time, in eval mode."""
    torch.manual_seed(0)
    backbone = VectorBackbone([("take", _Take()), ("project", _Project())], DIM, Identity("seed 0", {}, "vectors"))
    backbone.requires_grad_(False)
    return backbone.eval()
