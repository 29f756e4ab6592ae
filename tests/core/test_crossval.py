"""The cross-validated probe: its folds, and outcomes of rows that were not seen."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from tl_core.linear_path import moments, rotate
from tl_core.selection import crossval
from tl_core.selection.crossval import _turned, cross_validated_outcomes, deal
from tl_core.types import Task


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_folds_are_even_and_stratified(task: Task) -> None:
    labels = np.random.default_rng(0).choice(3, 103, p=[0.6, 0.3, 0.1])
    y: np.ndarray = {"multiclass": labels, "multilabel": np.eye(3)[labels], "regression": labels + 0.5}[task]
    fold = deal(y, task, 5, seed=0)
    assert sorted(Counter(fold.tolist()).values()) == [20, 20, 21, 21, 21]
    for value in range(3):
        counts = np.bincount(fold[labels == value], minlength=5)
        assert np.ptp(counts) <= 2


def test_groups_stay_whole_and_folds_even() -> None:
    groups = [f"speaker {i % 7}" for i in range(70)]
    fold = deal(np.arange(70) % 3, "multiclass", 5, 0, groups)
    assert all(len(set(fold[np.array(groups) == name])) == 1 for name in set(groups))
    assert sorted(Counter(fold.tolist()).values()) == [10, 10, 10, 20, 20]
    assert deal(np.arange(6) % 2, "multiclass", 5, 0, ["a"] * 3 + ["b"] * 3).max() == 1


def blobs(n: int, classes: int, spread: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    centres = torch.randn(classes, 20, generator=g)
    return centres[y] + spread * torch.randn(n, 20, generator=g), y


def test_outcomes_are_those_of_unseen_rows() -> None:
    x, y = blobs(300, 4, 1.5)
    assert 0.7 < cross_validated_outcomes(x, y, "multiclass", 4, 5, 0).metric() < 1.0
    g = torch.Generator().manual_seed(1)
    blind = cross_validated_outcomes(torch.randn(300, 400, generator=g), y, "multiclass", 4, 5, 0)
    assert 0.15 < blind.metric() < 0.35


def test_small_samples_are_dealt_again_until_one_deals_luck_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another seed would say of the same rows: several deals come closer to it than one."""
    x, y = blobs(200, 4, 2.5)

    def spread() -> float:
        return float(np.std([cross_validated_outcomes(x, y, "multiclass", 4, 5, seed).metric() for seed in range(12)]))

    several = spread()
    monkeypatch.setattr(crossval, "MOST_REPEATS", 1)
    assert several < 0.7 * spread()


def test_all_tasks_are_served_and_repeat() -> None:
    x, y = blobs(200, 4, 1.0)
    targets: dict[Task, torch.Tensor] = {
        "multiclass": y,
        "multilabel": torch.stack([y == 0, y > 1, y == 9], dim=1).float(),
        "regression": 1e4 + 3 * x[:, 0],
    }
    for task, target in targets.items():
        outputs = {"multiclass": 4, "multilabel": 3, "regression": 1}[task]
        first = cross_validated_outcomes(x, target, task, outputs, 5, 0)
        again = cross_validated_outcomes(x, target, task, outputs, 5, 0)
        assert first.terms.tobytes() == again.terms.tobytes()
        assert len(first) == 200
        assert first.metric() > 0.8


def test_groups_expose_a_leak_and_stay_with_the_outcomes() -> None:
    """Features that tell the speaker, not the class: a random split finds the class through the speaker."""
    g = torch.Generator().manual_seed(0)
    speaker = torch.arange(200) % 20
    x = torch.randn(20, 40, generator=g)[speaker] + 0.1 * torch.randn(200, 40, generator=g)
    y = speaker % 2
    names = [str(s) for s in speaker.tolist()]
    assert cross_validated_outcomes(x, y, "multiclass", 2, 5, 0).metric() > 0.95
    grouped = cross_validated_outcomes(x, y, "multiclass", 2, 5, 0, names)
    assert grouped.metric() < 0.8
    assert grouped.groups is not None
    assert len(set(zip(names, grouped.groups.tolist(), strict=True))) == 20


def test_classes_with_a_single_row_do_not_crash() -> None:
    x, y = blobs(30, 3, 0.5)
    y[0] = 3
    assert cross_validated_outcomes(x, y, "multiclass", 5, 5, 0).metric() > 0.8


def test_wide_features_are_turned_without_their_axes() -> None:
    """The rows' products with each other, all that a linear probe sees of them, stay what they were."""
    x = torch.randn(40, 90, generator=torch.Generator().manual_seed(0))
    rows, energy = _turned(x)
    usual = rotate(x, *moments(x))
    assert energy == pytest.approx(usual.energy)
    assert torch.allclose(rows @ rows.T, usual.rows @ usual.rows.T, atol=1e-3)
    assert torch.allclose(rows.square().sum(dim=0).double(), energy, rtol=1e-4)


def test_what_cannot_be_probed() -> None:
    with pytest.raises(ValueError, match="at least four rows; got 3"):
        cross_validated_outcomes(torch.ones(3, 2), torch.tensor([0, 1, 0]), "multiclass", 2, 5, 0)
    for width in (4, 40):
        x = torch.ones(10, width)
        x[2, 1] = float("nan")
        with pytest.raises(ValueError, match="1 of 10 feature rows hold NaN or infinity"):
            cross_validated_outcomes(x, torch.arange(10) % 2, "multiclass", 2, 5, 0)


def test_constant_features_say_the_commonest_class() -> None:
    for width in (3, 30):
        outcomes = cross_validated_outcomes(torch.ones(20, width), torch.arange(20) % 4 // 3, "multiclass", 2, 5, 0)
        assert outcomes.metric() == 0.75
