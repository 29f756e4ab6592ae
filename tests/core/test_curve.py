"""The learning curve: nested rows, paired intervals, a verdict that can be wrong only so often, a bounded cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tl_core.training import curve
from tl_core.training.curve import SHARES, _growing, _verdict, learning_curve
from tl_core.types import Task

OUTPUTS: dict[Task, int] = {"multiclass": 4, "multilabel": 4, "regression": 1}


def draw(task: Task, n: int, signal: float = 1.0, seed: int = 0, width: int = 20) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, width)).astype(np.float32)
    scores = signal * x[:, :4] + rng.standard_normal((n, 4))
    if task == "multiclass":
        return torch.from_numpy(x), torch.from_numpy(scores.argmax(axis=1))
    y = (scores > 0).astype(np.float32) if task == "multilabel" else (50 + 7 * scores[:, 0]).astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(y)


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_the_curve_rises_and_points_lie_in_their_intervals(task: Task) -> None:
    found = learning_curve(*draw(task, 300, 3.0), task, OUTPUTS[task], strength=10.0)
    points = found["points"]
    assert [point["share"] for point in points] == list(SHARES)
    assert [point["rows"] for point in points] == [round(share * 240) for share in SHARES]
    assert all(point["low"] <= point["value"] <= point["high"] for point in points)
    assert points[0]["value"] < points[-1]["value"]
    assert found["gain_low"] <= found["gain"] <= found["gain_high"]
    assert found["text"].startswith(found["verdict"])


def test_more_rows_help_where_a_class_has_few_and_not_where_all_is_known() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 60))
    y = np.arange(400) % 20
    few = torch.from_numpy((centres[y] + 4 * rng.standard_normal((400, 60))).astype(np.float32))
    hungry = learning_curve(few, torch.from_numpy(y), "multiclass", 20, strength=30.0)
    assert hungry["verdict"] == "more data would help"
    x, labels = draw("multiclass", 3000, 3.0, width=5)
    fed = learning_curve(x, labels, "multiclass", 4, strength=10.0)
    assert fed["verdict"] == "more data would not help"


def test_too_few_rows_cannot_tell() -> None:
    x, y = draw("multiclass", 24, 0.0)
    found = learning_curve(x, y, "multiclass", 4, strength=10.0)
    assert found["verdict"] == "can't tell"
    assert "may be more or less than 0.01" in found["text"]


def test_the_same_rows_give_the_same_numbers_and_units_do_not_count() -> None:
    x, y = draw("regression", 600)
    first = learning_curve(x, y, "regression", 1, strength=10.0)
    assert first == learning_curve(x.clone(), y.clone(), "regression", 1, strength=10.0)
    scaled = learning_curve(x, 1000 * y, "regression", 1, strength=10.0)
    assert scaled["gain"] == pytest.approx(first["gain"], abs=1e-4)


def test_beginnings_are_nested_and_stratified() -> None:
    truth = np.repeat([0, 1, 2], [70, 20, 10])
    order = _growing(np.arange(100), truth, "multiclass", None, [0, 0, 0])
    assert sorted(order.tolist()) == list(range(100))
    for length in (10, 30, 50):
        counts = np.bincount(truth[order[:length]], minlength=3)
        assert np.abs(counts - length * np.array([0.7, 0.2, 0.1])).max() <= 1.5


def test_groups_stay_whole_and_expose_a_leak() -> None:
    codes = np.arange(90) % 9
    order = _growing(np.arange(90), np.zeros(90, int), "multiclass", codes, [0, 0, 0])
    assert len(set(codes[order[:30]].tolist())) == 3
    rng = np.random.default_rng(0)
    speaker = np.arange(200) % 20
    x = rng.standard_normal((20, 40))[speaker] + 0.1 * rng.standard_normal((200, 40))
    tensors = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(speaker % 2)
    open_curve = learning_curve(*tensors, "multiclass", 2, strength=10.0)
    grouped = learning_curve(*tensors, "multiclass", 2, strength=10.0, groups=[str(s) for s in speaker])
    assert open_curve["points"][-1]["value"] > 0.95
    assert grouped["points"][-1]["value"] < 0.8
    widths = [found["points"][-1]["high"] - found["points"][-1]["low"] for found in (open_curve, grouped)]
    assert widths[1] > 2 * widths[0]


def test_large_sets_are_sampled_and_few_folds_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draw("multiclass", 900)
    monkeypatch.setattr(curve, "MOST_ROWS", 300)
    sampled = learning_curve(x, y, "multiclass", 4, strength=10.0)
    assert sampled["points"][-1]["share"] == pytest.approx(1 / 3)
    assert sampled["points"][-1]["rows"] == 240
    monkeypatch.setattr(curve, "BUDGET", 1.0)
    cheap = learning_curve(x, y, "multiclass", 4, strength=10.0)
    widths = [found["points"][-1]["high"] - found["points"][-1]["low"] for found in (sampled, cheap)]
    assert widths[1] > 1.5 * widths[0]


def test_verdicts() -> None:
    assert _verdict(0.012, 0.05) == "more data would help"
    assert _verdict(-0.01, 0.009) == "more data would not help"
    assert _verdict(0.0, 0.02) == "can't tell"


def test_four_rows_are_needed_and_features_must_be_finite() -> None:
    x, y = draw("multiclass", 24)
    with pytest.raises(ValueError, match="at least four rows; got 3"):
        learning_curve(x[:3], y[:3], "multiclass", 4, strength=1.0)
    x[2, 1] = float("nan")
    with pytest.raises(ValueError, match="1 of 24 feature rows hold NaN"):
        learning_curve(x, y, "multiclass", 4, strength=1.0)
