"""All scores of a candidate: what holds for each of them, and what they make of odd input."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tl_core.selection.scores import Score, h_score, knn, logme, nleep, scores_of
from tl_core.types import Task

Function = Callable[[Tensor, Tensor, Task], float]
FUNCTIONS: dict[str, Function] = {"logme": logme, "h_score": h_score, "knn": knn, "nleep": nleep}
DEFINED: dict[Task, list[str]] = {
    "multiclass": ["logme", "h_score", "knn", "nleep"],
    "multilabel": ["logme", "h_score", "knn"],
    "regression": ["logme", "knn"],
}
EVERY = [(task, name) for task, names in DEFINED.items() for name in names]


def draw(task: Task, n: int = 120, d: int = 10, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4
    x = (rng.normal(size=(n, d)) + 1.5 * rng.normal(size=(4, d))[y]) * np.linspace(0.5, 2, d) + 1
    targets = {"multiclass": y, "multilabel": x[:, :3] + rng.normal(size=(n, 3)) > 1, "regression": x[:, 0] * y}[task]
    return torch.from_numpy(x), torch.from_numpy(targets.astype(np.float64) if task != "multiclass" else targets)


@pytest.mark.parametrize("task", list(DEFINED))
def test_scores_that_are_defined_for_the_task(task: Task) -> None:
    x, y = draw(task)
    scores = scores_of(x, y, task)
    assert sorted(scores) == sorted(DEFINED[task])
    for name, score in scores.items():
        assert score.value == pytest.approx(FUNCTIONS[name](x, y, task), rel=1e-9)
        assert score.low < score.value < score.high
    assert scores_of(x, y, task) == scores


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_rotation_row_order_and_scale_change_nothing(task: Task, name: str) -> None:
    x, y = draw(task)
    score, rng = FUNCTIONS[name], np.random.default_rng(1)
    first = score(x, y, task)
    turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(10, 10)))[0])
    assert score(x @ turn, y, task) == pytest.approx(first, rel=1e-6)
    order = torch.from_numpy(rng.permutation(len(x)))
    assert score(x[order], y[order], task) == pytest.approx(first, rel=1e-6)
    assert score(1000 * x, y, task) == pytest.approx(first, rel=1e-6)
    if name != "logme":  # which has no intercept of its own, as published
        assert score(x + 3, y, task) == pytest.approx(first, rel=1e-6)


@pytest.mark.parametrize("name", DEFINED["multiclass"])
def test_names_of_classes_change_nothing(name: str) -> None:
    x, y = draw("multiclass")
    renamed = torch.tensor([17, 3, 40, 5])[y]
    assert FUNCTIONS[name](x, renamed, "multiclass") == pytest.approx(FUNCTIONS[name](x, y, "multiclass"), rel=1e-9)


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_rows_that_are_not_finite_are_counted(task: Task, name: str) -> None:
    x, y = draw(task)
    x[3, 1], x[70] = math.nan, math.inf
    with pytest.raises(ValueError, match="2 of 120 feature rows hold NaN or infinity"):
        FUNCTIONS[name](x, y, task)
    with pytest.raises(ValueError, match="2 of 120"):
        scores_of(x, y, task)


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_targets_that_never_vary(task: Task, name: str) -> None:
    x, y = draw(task)
    with pytest.raises(ValueError, match="targets that vary"):
        FUNCTIONS[name](x, y[:1].expand(y.shape), task)
    assert scores_of(x, y[:1].expand(y.shape), task) == {}


def odd_input(task: Task) -> dict[str, tuple[Tensor, Tensor]]:
    x, y = draw(task)
    wide, wide_y = draw(task, 30, 90)
    nearly = torch.cat([x, 5 + 1e-7 * torch.randn(120, 2, generator=torch.Generator().manual_seed(0))], dim=1)
    own = {"multiclass": torch.arange(12), "multilabel": torch.eye(12), "regression": torch.arange(12.0)}[task]
    return {
        "constant features": (torch.ones(120, 4), y),
        "no features at all": (torch.zeros(120, 4), y),
        "a constant column": (torch.cat([x, torch.full((120, 1), 9.0)], dim=1), y),
        "a nearly constant column": (nearly.float(), y),
        "a column twice": (torch.cat([x, x[:, :1]], dim=1), y),
        "rows four times": (x[:30].repeat(4, 1), y[:30].repeat(4, *[1] * (y.ndim - 1))),
        "fewer rows than features": (wide, wide_y),
        "one row of each class": (x[:12], own),
        "two rows": (x[:2], own[:2]),
        "one feature": (x[:, :1], y),
        "half precision": (x.half(), y),
        "the target itself": (y.double().reshape(120, -1), y),
    }


@pytest.mark.parametrize("task", list(DEFINED))
def test_odd_input_gives_numbers(task: Task) -> None:
    for case, (x, y) in odd_input(task).items():
        scores = scores_of(x, y, task)
        assert sorted(scores) == sorted(DEFINED[task]), case
        for name, score in scores.items():
            assert all(map(math.isfinite, (score.value, score.low, score.high))), (case, name)
            assert score.low <= score.value <= score.high, (case, name)
            loose = 1e-3 if case == "the target itself" else 1e-6  # without noise, evidence ends where rounding begins
            assert score.value == pytest.approx(FUNCTIONS[name](x, y, task), rel=loose, abs=1e-9), (case, name)


def test_a_constant_column_tells_nothing() -> None:
    x, y = draw("multiclass")
    padded = torch.cat([x - x.mean(dim=0), torch.zeros(120, 1)], dim=1)
    for name in ("knn", "nleep", "logme"):
        score = FUNCTIONS[name]
        assert score(padded, y, "multiclass") == pytest.approx(score(padded[:, :-1], y, "multiclass"), rel=1e-6)


def test_every_row_right_leaves_room_for_doubt() -> None:
    y = torch.arange(40) % 2
    x = torch.stack([y * 2.0 - 1, torch.zeros(40)], dim=1)
    found = scores_of(x, y, "multiclass")["knn"]
    assert found.value == 1.0
    assert found.low < 0.96
    assert found.high == 1.0


def test_groups_widen_what_they_should() -> None:
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(20), 6)
    x = torch.from_numpy(rng.normal(size=(20, 8))[person] + 0.05 * rng.normal(size=(120, 8)))
    y = torch.from_numpy(rng.integers(0, 3, 20)[person])
    rows, groups = scores_of(x, y, "multiclass"), scores_of(x, y, "multiclass", groups=[str(p) for p in person])
    assert groups["knn"].value < rows["knn"].value
    assert groups["logme"].value == rows["logme"].value
    assert groups["logme"].high - groups["logme"].low > rows["logme"].high - rows["logme"].low


def test_more_confidence_is_wider() -> None:
    x, y = draw("multiclass")
    narrow, wide = scores_of(x, y, "multiclass", confidence=0.5), scores_of(x, y, "multiclass", confidence=0.99)
    for name, score in narrow.items():
        assert wide[name].low < score.low
        assert score.high <= wide[name].high


def test_a_thousand_rows_take_about_a_second() -> None:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 20, (1000,), generator=g)
    x = torch.randn(1000, 768, generator=g) + 0.5 * torch.randn(20, 768, generator=g)[y]
    started = time.process_time()
    scores = scores_of(x, y, "multiclass")
    assert time.process_time() - started < 6  # CPU seconds, on a machine that others use too
    assert isinstance(scores["logme"], Score)
