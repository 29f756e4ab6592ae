"""A bank of Gaussian-derivative filters at four scales; features are how often and how strongly each one fires."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tl_core import Backbone, BackboneSpec, Identity, Prepared, State, drawn_digest, random_weights

WIDTH = 128  # every series is resampled to this many values
SCALES = (1.0, 2.0, 4.0, 8.0)
KERNEL = 33


def gaussian_derivatives() -> Tensor:
    """Filters [12, 1, 33]: a Gaussian and its first two derivatives at each scale, zero mean apart from the first."""
    t = torch.arange(KERNEL, dtype=torch.float64) - KERNEL // 2
    rows = []
    for scale in SCALES:
        bell = torch.exp(-0.5 * (t / scale) ** 2)
        for row in (bell, -t / scale * bell, ((t / scale) ** 2 - 1) * bell):
            rows.append(row / row.abs().sum())
    return torch.stack(rows).float().unsqueeze(1)


class Filters(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, len(weight), KERNEL, padding=KERNEL // 2, bias=False)
        self.conv.weight = nn.Parameter(weight)

    def forward(self, state: State) -> State:
        return {"x": self.conv(state["x"].unsqueeze(1))}  # [B, T] -> [B, 12, T]


class Pool(nn.Module):
    def forward(self, state: State) -> State:
        x = state["x"]
        return {"x": torch.cat([x.amax(-1), x.amin(-1), x.std(-1), (x > 0).float().mean(-1)], dim=-1)}  # [B, 48]


class FilterBank(Backbone):
    def prepare(self, decoded: Any) -> Prepared:
        series = torch.as_tensor(decoded).view(1, 1, -1)
        x = nn.functional.interpolate(series, WIDTH, mode="linear", align_corners=True).flatten()
        return Prepared(({"x": (x - x.mean()) / (x.std() + 1e-6)},))

    def collate(self, windows: Sequence[State]) -> State:
        return {"x": torch.stack([w["x"] for w in windows])}

    def example(self) -> State:
        return {"x": torch.sin(torch.linspace(0, 20, WIDTH))}

    def pooled(self, state: State) -> Tensor:
        return state["x"].float().square().mean(dim=-1)  # the energy of each filter: [B, 12, T] -> [B, 12]


def build(spec: BackboneSpec, random_seed: int | None) -> Backbone:
    weight = gaussian_derivatives()
    digest = hashlib.sha256(weight.numpy().tobytes()).hexdigest()
    if random_seed is not None:
        drawn = random_weights(lambda: nn.Conv1d(1, len(weight), KERNEL), random_seed)
        weight, digest = drawn.weight.detach(), drawn_digest(drawn)
    identity = Identity(digest, {"width": WIDTH, "standardised": True, "loader": 1}, "filter-bank")
    return FilterBank([("filters", Filters(weight)), ("pool", Pool())], 4 * len(weight), identity)
