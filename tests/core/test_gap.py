"""The gap between training and validation rows, and when it means that a model has memorised."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tl_core.heads import linear_heads
from tl_core.training.gap import interval, memorised
from tl_core.training.probe import fit_probe
from tl_core.types import HeadSpec, Targets, Task

SPECS: dict[Task, HeadSpec] = {spec.task: spec for spec in linear_heads("text")}


def probe(task: Task, signal: float, rows: int = 120, seed: int = 0) -> dict[str, object]:
    """The block of a probe on more features than rows, whose targets follow the features as far as `signal` says."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows + 200, 150)).astype(np.float32)
    scores = signal * 3 * x[:, :3] + rng.standard_normal((len(x), 3))
    y: np.ndarray = {
        "multiclass": scores.argmax(axis=1),
        "multilabel": (scores > 0).astype(np.float32),
        "regression": scores[:, 0].astype(np.float32),
    }[task]
    targets = Targets(task, () if task == "regression" else ("a", "b", "c"))
    spec = SPECS[task]
    tensors = [torch.from_numpy(part) for part in (x[:rows], y[:rows], x[rows:], y[rows:])]
    head = spec.build(150, targets)
    fit = fit_probe(*tensors, head, spec, targets, (1.0,), False)
    said = fit.head.decode(fit.val_logits).detach().numpy()
    return memorised(fit.path[0]["train"], said, y[rows:], y[:rows], spec)


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_noise_learnt_by_heart_is_told_from_learning(task: Task) -> None:
    noise, signal = probe(task, 0.0), probe(task, 2.0, rows=400)
    assert noise["memorised"]
    assert "has memorised its training rows" in str(noise["text"])
    assert not signal["memorised"]
    assert "memorised" not in str(signal["text"])


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_the_gap_lies_in_its_interval(task: Task) -> None:
    for signal in (0.0, 0.5, 2.0):
        block = probe(task, signal)
        low, gap, high = block["low"], block["gap"], block["high"]
        assert isinstance(low, float)
        assert isinstance(gap, float)
        assert isinstance(high, float)
        assert low <= gap <= high
        assert gap == pytest.approx(block["train"] - block["val"])  # type: ignore[operator]


def test_a_model_that_learnt_nothing_has_not_memorised() -> None:
    y = np.arange(90) % 3
    said = np.tile([0.4, 0.3, 0.3], (90, 1))
    assert not memorised(1 / 3, said, y, y, SPECS["multiclass"])["memorised"]


def test_few_rows_do_not_convict() -> None:
    y = np.array([0, 1, 0, 1, 0])
    said = np.eye(2)[[0, 1, 1, 1, 0]]
    block = memorised(1.0, said, y, np.arange(40) % 2, SPECS["multiclass"])
    assert block["high"] - block["low"] > 0.4
    assert not block["memorised"]


def test_metrics_that_are_better_when_lower_count_the_other_way() -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal(100)
    spec = HeadSpec("linear", "text", "regression", SPECS["regression"].build, ("mae",), "mae", higher_is_better=False)
    block = memorised(0.05, rng.standard_normal(100), y, y, spec)
    assert block["gap"] > 0.5
    assert 0 < block["low"] <= block["gap"] <= block["high"]
    assert block["memorised"]


def test_rows_of_one_group_are_drawn_together() -> None:
    y = np.arange(200) % 2
    right = np.repeat(np.arange(20) % 4 > 0, 10)
    said = np.eye(2)[np.where(right, y, 1 - y)]
    alone = interval(SPECS["multiclass"], said, y, confidence=0.9, seed=0)
    groups = [str(i // 10) for i in range(200)]
    together = interval(SPECS["multiclass"], said, y, confidence=0.9, seed=0, groups=groups)
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_the_interval_covers_and_does_not_collapse() -> None:
    y = np.zeros(30, int)
    low, high = interval(SPECS["multiclass"], np.tile([1.0, 0.0], (30, 1)), y, confidence=0.9, seed=0)
    assert low < 0.98
    assert high == 1.0
    rng, hits = np.random.default_rng(0), 0
    for seed in range(200):
        right = rng.random(60) < 0.8
        low, high = interval(
            SPECS["multiclass"], np.eye(2)[(~right).astype(int)], np.zeros(60, int), confidence=0.9, seed=seed
        )
        hits += low <= 0.8 <= high
    assert 0.84 <= hits / 200 <= 0.96


@pytest.mark.parametrize("watch", ["accuracy", "macro_f1"])
def test_the_same_rows_give_the_same_numbers(watch: str) -> None:
    spec = HeadSpec("linear", "text", "multiclass", SPECS["multiclass"].build, (watch,), watch)
    y = np.arange(60) % 3
    said = np.random.default_rng(0).random((60, 3))
    assert memorised(0.9, said, y, y, spec) == memorised(0.9, said, y, y, spec)
