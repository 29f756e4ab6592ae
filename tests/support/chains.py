"""Small backbones with the parts that real ones have: all kinds of norms, attention, segments without weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tl_core.types import Backbone, Identity, Prepared, State

B = TypeVar("B", bound=Backbone)


class Steps(nn.Sequential):
    """Modules in a row, applied to the state's main tensor."""

    def forward(self, state: State) -> State:
        x = state["x"]
        for module in self:
            x = module(x)
        return {**state, "x": x}


class Pooled(nn.Module):
    """[B, C, H, W] -> [B, C], [B, T, D] -> [B, D]."""

    def forward(self, state: State) -> State:
        x = state["x"]
        return {"x": x.mean(dim=(2, 3)) if x.ndim == 4 else x.mean(dim=1)}


class Attention(nn.Module):
    """Torch's own attention, which reads the weights of its output layer without calling it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(x)  # type: ignore[no-any-return]


class RmsNorm(nn.Module):
    """A norm as libraries write their own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight * x.square().mean(dim=-1, keepdim=True).add(1e-6).rsqrt()


class Chain(Backbone):
    """Windows of one shape, which prepare() takes as they are."""

    size: tuple[int, ...] = (3, 8, 8)

    def prepare(self, decoded: Any) -> Prepared:
        return Prepared(({"x": decoded},))

    def collate(self, windows: Sequence[State]) -> State:
        return {key: torch.stack([window[key] for window in windows]) for key in windows[0]}

    def example(self) -> State | None:
        return {"x": torch.linspace(-1, 1, int(torch.tensor(self.size).prod())).reshape(self.size)}


class Rows(Chain):
    """Token vectors [T, D] instead of maps."""

    size = (5, 8)


def maps() -> Chain:
    """Convolutions: `stem` and `deep` with batch-norm, `group` with group-norm, `act` and `pool` without weights."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        segments: list[tuple[str, nn.Module]] = [
            ("stem", Steps(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())),
            ("group", Steps(nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.GroupNorm(2, 8))),
            ("act", Steps(nn.ReLU())),
            ("deep", Steps(nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12), nn.Dropout(0.2))),
            ("pool", Pooled()),
        ]
        return built(Chain(segments, 12, Identity("0" * 64, {}, "maps")))


def tokens() -> Rows:
    """Attention: `low` and `high` with layer-norm, `end` with a library's own norm."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        segments: list[tuple[str, nn.Module]] = [
            ("low", Steps(Attention(8))),
            ("high", Steps(Attention(8))),
            ("end", Steps(RmsNorm(8))),
            ("pool", Pooled()),
        ]
        return built(Rows(segments, 8, Identity("0" * 64, {}, "tokens")))


def built(backbone: B) -> B:
    """As `BackboneSpec.build` leaves it."""
    backbone.requires_grad_(False)
    return backbone.eval()
