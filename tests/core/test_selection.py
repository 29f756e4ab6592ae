"""Ranking: the sample, the folds, the cross-validated probe and the order of candidates."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
import torch

from tl_core.intervals import wilson
from tl_core.selection import Candidate, cross_validated_probe, rank, stratified_sample
from tl_core.selection.crossval import deal
from tl_core.types import Targets, Task


@dataclass
class Rows:
    """The part of a manifest that sampling reads: every second row is a training row."""

    labels: np.ndarray
    task: Task = "multiclass"
    names: list[str] = field(default_factory=list)

    @property
    def targets(self) -> Targets:
        return Targets(self.task)

    def rows(self, split: str | None = None) -> np.ndarray:
        assert split == "train"
        return 2 * np.arange(len(self.labels))

    def digests(self, rows: np.ndarray) -> list[str]:
        return [self.names[row // 2] if self.names else f"digest {row}" for row in rows]

    def target_array(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.labels[rows // 2])


def sample(rows: Rows, n: int, seed: int = 0) -> np.ndarray:
    return stratified_sample(cast(Any, rows), n, seed)


def test_sample_is_stratified_and_in_order() -> None:
    rows = Rows(np.repeat([0, 1, 2], [600, 300, 100]))
    taken = sample(rows, 100)
    assert Counter(rows.target_array(taken).tolist()) == {0: 60, 1: 30, 2: 10}
    assert taken.tolist() == sorted(set(taken.tolist()))
    assert (taken % 2 == 0).all()


def test_sample_keeps_two_rows_of_a_rare_class() -> None:
    rows = Rows(np.repeat([0, 1, 2, 3], [5000, 3, 2, 1]))
    taken = sample(rows, 50)
    assert Counter(rows.target_array(taken).tolist()) == {0: 45, 1: 2, 2: 2, 3: 1}


@pytest.mark.parametrize("n", [20, 37, 150, 299])
def test_sample_has_the_size_asked_for(n: int) -> None:
    labels = np.random.default_rng(n).integers(0, 40, 300)
    assert len(sample(Rows(labels), n)) == n
    assert len(sample(Rows(labels, "regression"), n)) == n
    assert len(sample(Rows(np.eye(40)[labels], "multilabel"), n)) == n


def test_small_data_are_taken_whole() -> None:
    assert sample(Rows(np.zeros(10, np.int64)), 20).tolist() == list(range(0, 20, 2))


def test_sample_follows_the_seed_and_survives_growth() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 2000)
    names = [f"file {i}" for i in range(2000)]
    first = sample(Rows(labels, names=names), 200)
    assert first.tolist() == sample(Rows(labels, names=names), 200).tolist()
    assert first.tolist() != sample(Rows(labels, names=names), 200, seed=1).tolist()
    grown = sample(Rows(np.append(labels, [0] * 20), names=[*names, *map(str, range(20))]), 200)
    assert len(set(first) & set(grown)) > 180


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


def test_probe_score_is_that_of_unseen_rows() -> None:
    x, y = blobs(300, 4, 1.5)
    score = cross_validated_probe(x, y, "multiclass", 4, 5, 0)
    assert 0.6 < score.low < score.value < score.high < 1.0
    g = torch.Generator().manual_seed(1)
    blind = cross_validated_probe(torch.randn(300, 400, generator=g), y, "multiclass", 4, 5, 0)
    assert blind.low < 0.25 + 0.1
    assert blind.value < 0.4


def test_probe_serves_all_tasks_and_repeats() -> None:
    x, y = blobs(200, 4, 1.0)
    targets: dict[Task, torch.Tensor] = {
        "multiclass": y,
        "multilabel": torch.stack([y == 0, y > 1, y == 9], dim=1).float(),
        "regression": 1e4 + 3 * x[:, 0],
    }
    for task, target in targets.items():
        outputs = {"multiclass": 4, "multilabel": 3, "regression": 1}[task]
        first = cross_validated_probe(x, target, task, outputs, 5, 0)
        assert first == cross_validated_probe(x, target, task, outputs, 5, 0)
        assert first.value > 0.8
        assert first.low <= first.value <= first.high


def test_groups_expose_a_leak() -> None:
    """Features that tell the speaker, not the class: a random split finds the class through the speaker."""
    g = torch.Generator().manual_seed(0)
    speaker = torch.arange(200) % 20
    x = torch.randn(20, 40, generator=g)[speaker] + 0.1 * torch.randn(200, 40, generator=g)
    y = speaker % 2
    names = [str(s) for s in speaker.tolist()]
    assert cross_validated_probe(x, y, "multiclass", 2, 5, 0).value > 0.95
    assert cross_validated_probe(x, y, "multiclass", 2, 5, 0, names).value < 0.8


def test_classes_with_a_single_row_do_not_crash() -> None:
    x, y = blobs(30, 3, 0.5)
    y[0] = 3
    assert cross_validated_probe(x, y, "multiclass", 5, 5, 0).value > 0.8


def test_confidence_widens_the_interval() -> None:
    x, y = blobs(100, 3, 1.5)
    narrow = cross_validated_probe(x, y, "multiclass", 3, 5, 0, confidence=0.6)
    wide = cross_validated_probe(x, y, "multiclass", 3, 5, 0, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_too_few_rows() -> None:
    with pytest.raises(ValueError, match="at least four rows; got 3"):
        cross_validated_probe(torch.ones(3, 2), torch.tensor([0, 1, 0]), "multiclass", 2, 5, 0)


def test_wilson_interval() -> None:
    # Wilson 1927; values of any statistics package
    assert list(wilson(0.9, 100, 0.95)) == pytest.approx([0.82563, 0.94477], abs=1e-5)
    assert wilson(1.0, 50, 0.9)[1] == pytest.approx(1.0)
    assert wilson(1.0, 50, 0.9)[0] < 0.96


def candidate(name: str, probe: float | None, params: int = 1, low: float | None = None, dim: int = 8) -> Candidate:
    return Candidate(
        name=name,
        status="dropped" if probe is None else "ranked",
        reason="no weights" if probe is None else None,
        logme=probe,
        probe=probe,
        probe_low=probe if low is None else low,
        probe_high=probe,
        params=params,
        feature_dim=dim,
        licence=None,
        source="folder",
        fingerprint=None,
    )


def names(*candidates: Candidate) -> list[str]:
    return [c.name for c in rank(candidates)]


def test_the_best_probe_comes_first() -> None:
    assert names(candidate("a", 0.7), candidate("b", 0.9), candidate("c", 0.8)) == ["b", "c", "a"]


def test_ties_within_the_interval_go_to_the_smaller_network() -> None:
    best = candidate("large", 0.90, params=100, low=0.86)
    assert names(best, candidate("small", 0.87, params=10), candidate("poor", 0.85)) == ["small", "large", "poor"]
    assert names(best, candidate("large too", 0.87, params=100, dim=4)) == ["large too", "large"]
    assert names(best, candidate("twin", 0.90, params=100, low=0.86)) == ["large", "twin"]


def test_the_rule_starts_again_after_a_tie() -> None:
    group = [
        candidate("a", 0.9, 5, 0.88),
        candidate("b", 0.7, 5, 0.65),
        candidate("c", 0.66, 1, 0.6),
        candidate("d", 0.6),
    ]
    assert names(*group) == ["a", "c", "b", "d"]


def test_order_does_not_depend_on_the_order_given() -> None:
    group = [candidate(f"n{i}", 0.5 + (i * 7 % 10) / 20, i % 3, 0.45 + (i * 7 % 10) / 20) for i in range(10)]
    assert names(*group) == names(*reversed(group))


def test_dropped_candidates_come_last_with_their_reason() -> None:
    ranked = rank([candidate("z", None), candidate("b", None), candidate("a", 0.1)])
    assert [(c.name, c.reason) for c in ranked] == [("a", None), ("b", "no weights"), ("z", "no weights")]


def test_a_candidate_is_json_without_times() -> None:
    record = dataclasses.asdict(candidate("a", 0.5))
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert not [key for key in record if "second" in key or "time" in key]
