"""Batch-norm statistics of a network that starts from random weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tl_core.training.norms import BATCH, measure_norms
from tl_core.types import Backbone, Identity, Prepared, State


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(0.5)

    def forward(self, state: State) -> State:
        return {"x": self.inner(self.dropout(state["x"]))}


class Plain(Backbone):
    def prepare(self, decoded: Any) -> Prepared:
        raise NotImplementedError

    def collate(self, windows: Any) -> State:
        raise NotImplementedError


class Vectors:
    """A source whose samples are rows of a table; remembers what it was asked for."""

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.asked: list[int] = []

    def batches(self, groups: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows in groups:
            self.asked += rows.tolist()
            yield rows, rows

    def collate(self, rows: np.ndarray) -> Iterator[tuple[int, State, np.ndarray]]:
        yield 0, {"x": self.table[torch.from_numpy(rows)]}, np.arange(len(rows))


def test_norms_take_the_statistics_of_the_rows_given() -> None:
    backbone = Plain([("norm", Norm())], 8, Identity("w", {}, "normed")).eval()
    table = torch.randn(5 * BATCH, 8, generator=torch.Generator().manual_seed(0)) * 10 + 3
    rows = np.arange(BATCH, 5 * BATCH)
    source: Any = Vectors(table)
    measure_norms(source, backbone, rows)
    norm = backbone.segments["norm"].get_submodule("inner")
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # dropout is no part of it: the mean of what the norm sees, batch by batch
    assert torch.allclose(norm.running_mean, table[BATCH:].mean(0), atol=1e-4)
    assert torch.allclose(norm.running_var, table[BATCH:].var(0), rtol=0.05)
    assert sorted(source.asked) == rows.tolist()
    assert norm.momentum == 0.1
    assert not backbone.training
    assert not norm.training


def test_without_norms_no_sample_is_read() -> None:
    class Same(nn.Module):
        def forward(self, state: State) -> State:
            return state

    source: Any = Vectors(torch.zeros(4, 8))
    measure_norms(source, Plain([("same", Same())], 8, Identity("w", {}, "same")), np.arange(4))
    assert source.asked == []
