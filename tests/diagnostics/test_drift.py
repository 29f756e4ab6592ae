"""Drift: said where there is some, not where there is none, and honest where nobody could tell."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from tl_core.diagnostics.drift import drift
from tl_core.diagnostics.drift_result import Drift
from tl_core.diagnostics.drift_tests import Side, p_of, ways_to_trade
from tl_core.held import Held, group_codes
from tl_core.intervals import wilson
from tl_core.reference import Reference, unit
from tl_core.types import Targets, Task

CLASSES = ("a", "b", "c")
PLACES = np.random.default_rng(9).normal(size=(3, 24))
QUICK: dict[str, Any] = {"permutations": 250, "resamples": 50}


def rows(count: int, seed: int, *, moved: float = 0.0, odds: tuple[float, ...] = (0.4, 0.35, 0.25)) -> Any:
    """Features [N, 24] of three classes, probabilities that a fitting model gives them, and the classes."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, p=odds, size=count)
    x = (PLACES[truth] + 1.5 * rng.normal(size=(count, 24)) + moved).astype(np.float32)
    logits = -((x[:, None] - PLACES[None]) ** 2).sum(axis=2) / 4.5
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return x, (p / p.sum(axis=1, keepdims=True)).astype(np.float32), truth


def as_task(task: Task, p: np.ndarray) -> np.ndarray:
    return p[:, 0] if task == "regression" else p


def bundle(task: Task = "multiclass", seed: int = 0, val: int = 120) -> tuple[Reference, Targets]:
    train, (x, p, truth) = rows(200, seed + 1000)[0], rows(val, seed + 2000)
    held = Held.of(unit(x), as_task(task, p), truth, task, None)
    return dataclasses.replace(Reference.of(train, x), held=held), targets_of(task)


def targets_of(task: Task) -> Targets:
    return Targets(task, () if task == "regression" else CLASSES)


def look(new: Any, task: Task = "multiclass", seed: int = 0, **how: Any) -> Drift:
    reference, targets = how.pop("bundle", None) or bundle(task, seed)
    x, p, _ = new
    ids = [f"row {i}" for i in range(len(x))]
    return drift(reference, x, as_task(task, p), targets, ids, frozen=True, seed=seed, **{**QUICK, **how})


def names(found: Drift) -> set[str]:
    return {test.name for test in found.tests if test.alarm}


def test_equal_data_raise_no_more_alarms_than_promised() -> None:
    alarms = sum(look(rows(40, seed), seed=seed).state == "drift" for seed in range(60))
    assert wilson(alarms / 60, 60, 0.95)[0] <= 0.05


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_moved_features_are_drift(task: Task) -> None:
    found = look(rows(80, 1, moved=1.5), task)
    assert found.state == "drift"
    assert "features" in names(found)
    assert "The 80 new rows are of another kind than those the model was made for." in found.text
    assert "together at a false-alarm rate of 0.05" in found.text
    assert ("confidence" in {test.name for test in found.tests}) == (task != "regression")
    json.dumps(found.as_json(), allow_nan=False)


def test_another_mix_of_classes_is_drift_in_the_answers() -> None:
    found = look(rows(150, 1, odds=(0.05, 0.05, 0.9)))
    assert "answers" in names(found)
    top = found.answers[0]
    assert top.name == "c"
    assert top.p <= 0.05
    assert top.new > 0.7 > 0.4 > top.known


def test_a_few_foreign_rows_are_found_and_named() -> None:
    x, p, truth = rows(60, 1)
    x[:8] = -8 * PLACES.sum(axis=0)
    found = look((x, p, truth))
    assert found.state == "drift"
    assert {one.id for one in found.strangest[:8]} == {f"row {i}" for i in range(8)}
    assert found.strangest[0].score > 1
    assert found.unusual.value >= 8 / 60
    assert found.accuracy is None
    assert any("Therefore no accuracy is foretold." in note for note in found.notes)


def test_a_lost_confidence_foretells_a_lost_accuracy() -> None:
    x, _, truth = rows(100, 1)
    flat = np.full((100, 3), 1 / 3, np.float32) + np.array([0.02, 0, -0.02], np.float32)
    found = look((x, flat, truth))
    assert "confidence" in names(found)
    assert found.accuracy is not None
    assert found.known_accuracy is not None
    assert found.accuracy.high < found.known_accuracy - 0.3


def test_too_few_rows_are_told_not_passed() -> None:
    found = look(rows(9, 1))
    assert found.state == "too few"
    assert found.text.startswith("Too few rows to tell: 9 new rows are compared, 20 are the least")
    assert "features" not in {test.name for test in found.tests}
    assert look(rows(60, 1), bundle=bundle(val=10)).state == "too few"  # 10 held-out rows
    assert look(rows(1, 1)).state == "too few"


def test_so_few_may_still_be_drift() -> None:
    x, p, truth = rows(9, 1)
    found = look((-9 * x, p, truth))
    assert found.state == "drift"


def groups_of(count: int, seed: int) -> Any:
    """Rows in groups of 15, each group at a place of its own."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(count), 15)
    x = (3 * rng.normal(size=(count, 24))[of] + 0.5 * rng.normal(size=(len(of), 24))).astype(np.float32)
    p = np.full((len(of), 3), 1 / 3, np.float32)
    return x, p, [f"{seed}-{group}" for group in of]


def test_groups_of_rows_that_are_alike_raise_no_false_alarm_where_they_are_known() -> None:
    alarms = {True: 0, False: 0}
    for seed in range(12):
        (train, _, trained), (x, p, held), (new, said, own) = (groups_of(10, 3 * seed + i) for i in range(3))
        for known in alarms:
            reference = dataclasses.replace(
                Reference.of(train, x),
                held=Held.of(unit(x), p, np.zeros(150, np.int64), "multiclass", held if known else None),
                groups=group_codes(trained) if known else None,
            )
            groups = own if known else None
            found = look((new, said, None), seed=seed, bundle=(reference, targets_of("multiclass")), groups=groups)
            alarms[known] += found.state == "drift"
            assert any("taken as independent" in note for note in found.notes) != known
    assert alarms[False] >= 10
    assert alarms[True] <= 2


def test_a_single_group_can_not_raise_an_alarm() -> None:
    reference, targets = bundle()
    assert reference.held is not None
    grouped = dataclasses.replace(reference, held=dataclasses.replace(reference.held, groups=np.arange(120) // 12))
    found = look(rows(60, 1, moved=1.0), bundle=(grouped, targets), groups=["one video"] * 60)
    assert found.state == "too few"
    assert "too few groups: no test of so few could raise an alarm" in found.text


def test_ways_to_trade() -> None:
    def side(groups: list[int] | None, count: int = 4) -> Side:
        return Side(np.zeros(count), groups=None if groups is None else np.array(groups, np.int64))

    assert ways_to_trade(side(None), side(None)) is None
    assert ways_to_trade(side([1, 1, 2, 2]), side([3, 3, 4, 4])) == 6
    assert ways_to_trade(side([1, 1, 2, 2]), side([2, 2, 4, 4])) == 10**6  # rows of 2 trade among themselves
    assert ways_to_trade(side([1, 1, 1, 1]), side(None)) == 5  # each new row its own


def test_a_reference_of_an_older_tl_tells_what_it_can() -> None:
    reference, targets = bundle()
    older = dataclasses.replace(reference, held=None)
    assert look(rows(60, 3), bundle=(older, targets)).state == "no drift"
    found = look(rows(80, 1, moved=1.5), bundle=(older, targets))
    assert found.state == "drift"
    assert {test.name for test in found.tests} == {"unusual", "distance", "features", "kernel"}
    assert any("made by an older tl" in note for note in found.notes)
    assert found.accuracy is None
    assert found.answers == ()


def test_almost_constant_features_tell_nothing() -> None:
    """What they show is who computed a row, and how it was rounded."""
    (train, _, _), (x, p, truth), (new, said, _) = rows(200, 1000), rows(120, 2000), rows(60, 7)
    rng = np.random.default_rng(0)

    def beside(features: np.ndarray, value: float) -> np.ndarray:
        constant = value + 1e-4 * rng.normal(size=(len(features), 2))
        short = np.sqrt(0.5) * unit(features)
        return np.concatenate([short, constant], axis=1).astype(np.float32)

    held = Held.of(unit(beside(x, 0.5)), p, truth, "multiclass", None)
    made = dataclasses.replace(Reference.of(beside(train, 0.5), beside(x, 0.5)), held=held)
    found = look((beside(new, 0.501), said, None), bundle=(made, targets_of("multiclass")))
    assert not names(found) & {"features", "kernel"}


def test_a_smaller_alarm_rate_asks_for_more() -> None:
    strict = look(rows(40, 1, moved=0.35), alarm_rate=0.001)
    assert strict.alarm_rate == 0.001
    assert all(test.corrected > 0.001 for test in strict.tests if not test.alarm)
    assert look(rows(80, 1, moved=2.0), alarm_rate=0.001).state == "drift"  # enough permutations for it


def test_the_same_rows_give_the_same_words() -> None:
    assert look(rows(40, 1)) == look(rows(40, 1))


def test_nonsense_is_refused() -> None:
    x, p, truth = rows(5, 0)
    for bad in ((x[:0], p[:0], truth), (np.full_like(x, np.nan), p, truth)):
        with pytest.raises(ValueError, match="finite"):
            look(bad)


def test_p_counts_what_was_seen_and_ties() -> None:
    assert p_of(np.array([1.0, 1.0, 0.0, 2.0])) == 0.75
    assert p_of(np.array([3.0, 1.0, 0.0, 2.0])) == 0.25
