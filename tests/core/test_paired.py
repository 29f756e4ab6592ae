"""Two sets of predictions on the same rows: the interval, McNemar's test, the sentence, and the rows still needed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from pydantic import TypeAdapter
from scipy.stats import binomtest

from tl_core.errors import UserError
from tl_core.evaluation import Interval, Paired, class_differences, paired
from tl_core.evaluation.paired import coin_p
from tl_core.types import Targets

THREE = Targets("multiclass", ("a", "b", "c"))


def said(truth: np.ndarray, wrong: np.ndarray, classes: int = 3) -> np.ndarray:
    """One-hot predictions that are right but where told."""
    return np.eye(classes)[np.where(wrong, (truth + 1) % classes, truth)]


def sample(rows: int, first: float, second: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions with these shares of errors, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=rows)
    draw = rng.random(rows)  # alike for both: they err on the same rows
    return said(truth, draw < first), said(truth, draw < second), truth


@pytest.mark.parametrize(("a", "b"), [(0, 0), (0, 1), (3, 3), (4, 11), (40, 20), (0, 9), (5000, 5210), (700, 1)])
def test_the_p_of_mcnemar_is_the_exact_binomial(a: int, b: int) -> None:
    if a + b == 0:
        assert coin_p(a, b) == 1.0
        return
    assert coin_p(a, b) == pytest.approx(binomtest(a, a + b).pvalue, rel=1e-5)
    assert coin_p(a, b) == coin_p(b, a)
    assert coin_p(a, b, "one") == pytest.approx(binomtest(b, a + b, alternative="greater").pvalue, rel=1e-5)


def test_a_million_uneven_rows_have_a_p() -> None:
    assert coin_p(500_000, 500_000) == 1.0
    assert coin_p(499_000, 501_000) == pytest.approx(binomtest(499_000, 1_000_000).pvalue, rel=1e-4)


def test_a_better_second_is_told_with_its_counts() -> None:
    first, second, truth = sample(400, 0.3, 0.15)
    result = paired(THREE, first, second, truth)
    before, after = (float((p.argmax(1) == truth).mean()) for p in (first, second))
    assert (result.first.value, result.second.value) == pytest.approx((before, after))
    assert result.difference.value == pytest.approx(after - before)
    assert result.difference.low > 0
    assert (result.state, result.more_rows) == ("better", None)
    assert result.mcnemar
    assert (result.mcnemar.first_only, result.mcnemar.second_only) == (0, round(400 * (after - before)))
    assert result.mcnemar.p == pytest.approx(2 * 0.5**result.mcnemar.second_only, rel=1e-4)
    assert result.differ == result.mcnemar.second_only
    assert result.text.startswith(f"Better than the first: the second has accuracy {after:.3f} against {before:.3f}, ")
    back = paired(THREE, second, first, truth, names=("new", "old"))
    assert back.state == "worse"
    assert (back.difference.low, back.difference.high) == pytest.approx(
        (-result.difference.high, -result.difference.low)
    )
    assert back.text.startswith("Worse than new: old has accuracy ")


def test_rows_in_common_make_the_paired_interval_narrower_than_two_apart() -> None:
    first, second, truth = sample(400, 0.3, 0.28)
    result = paired(THREE, first, second, truth)
    apart = result.first.high - result.first.low
    assert result.difference.high - result.difference.low < apart / 2


def test_where_it_cannot_tell_so_many_more_rows_would() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(3, size=200)
    first, second = (said(truth, rng.random(200) < share) for share in (0.25, 0.22))
    result = paired(THREE, first, second, truth)
    assert result.state == "can't tell"
    assert result.more_rows
    assert f"Deciding it would take about {result.more_rows:,} more" in result.text
    # the number is kept: on so many rows with the same shares, about 4 of 5 draws decide
    right = np.stack([p.argmax(1) == truth for p in (first, second)]).astype(float)
    steps, share = np.unique(right[1] - right[0], return_counts=True)
    drawn = np.random.default_rng(4).choice(steps, (300, 200 + result.more_rows), p=share / 200)
    decided = np.abs(drawn.mean(1)) > 1.645 * drawn.std(1) / np.sqrt(drawn.shape[1])
    assert 0.7 < decided.mean() < 0.9


def test_equal_decisions_leave_what_so_many_rows_leave_open() -> None:
    first, _, truth = sample(100, 0.2, 0.2)
    result = paired(THREE, first, first * 0.5 + 0.1, truth)
    assert (result.state, result.differ, result.more_rows) == ("can't tell", 0, None)
    assert result.difference.value == 0
    assert 0.02 < result.difference.high < 0.03  # about 2.7 / 100 could still differ
    assert result.difference.low == -result.difference.high
    assert result.text.startswith("No row is decided otherwise by the second than by the first: accuracy ")
    assert result.mcnemar
    assert result.mcnemar.p == 1.0


def test_groups_are_drawn_whole_and_mcnemar_has_no_p_then() -> None:
    rng = np.random.default_rng(5)
    truth, groups = rng.integers(3, size=300), [f"g{i // 15}" for i in range(300)]
    worse = np.isin(np.arange(300) // 15, [1, 4, 7, 9, 12])  # whole groups on which the first fails
    first, second = said(truth, worse), said(truth, np.isin(np.arange(300) // 15, [2, 3, 9]))
    alone, grouped = paired(THREE, first, second, truth), paired(THREE, first, second, truth, groups=groups)
    assert grouped.difference.value == alone.difference.value
    assert grouped.difference.high - grouped.difference.low > 2 * (alone.difference.high - alone.difference.low)
    assert (alone.state, grouped.state) == ("better", "can't tell")
    assert grouped.mcnemar
    assert (grouped.mcnemar.first_only, grouped.mcnemar.second_only, grouped.mcnemar.p) == (30, 60, None)


def test_one_sided_ends_hold_alone() -> None:
    first, second, truth = sample(300, 0.3, 0.26)
    one, two = (paired(THREE, first, second, truth, confidence=c, side=s) for c, s in ((0.9, "one"), (0.8, "two")))
    assert (one.difference, one.side, one.confidence) == (two.difference, "one", 0.9)
    assert "(90% one-sided ends +0.0" in one.text


def test_labels_and_values_are_compared_by_their_own_metric() -> None:
    rng = np.random.default_rng(6)
    truth = rng.random((200, 4)) < 0.4
    noise = rng.normal(size=(200, 4))
    first, second = (1 / (1 + np.exp(-(2 * truth - 1) * s - noise)) for s in (1.0, 1.6))
    labels = Targets("multilabel", tuple("wxyz"))
    result = paired(labels, first, second, truth)
    assert (result.metric, result.state) == ("micro_f1", "better")
    expected = sk.f1_score(truth, second > 0.5, average="micro") - sk.f1_score(truth, first > 0.5, average="micro")
    assert result.difference.value == pytest.approx(expected, abs=1e-6)
    assert result.mcnemar
    right = [((p > 0.5) == truth).all(1) for p in (first, second)]
    assert result.mcnemar.second_only == int((right[1] & ~right[0]).sum())
    values = rng.normal(size=200)
    result = paired(Targets("regression"), values + rng.normal(size=200), values + 0.4 * rng.normal(size=200), values)
    assert (result.metric, result.state, result.mcnemar, result.differ) == ("r2", "better", None, None)
    same = paired(Targets("regression"), values + 0.1, values + 0.1, values)
    assert (same.state, same.difference) == ("can't tell", Interval(0.0, 0.0, 0.0, "none"))


def test_classes_are_listed_by_how_far_they_moved() -> None:
    rng = np.random.default_rng(7)
    truth = rng.integers(3, size=300)
    first, second = said(truth, (truth == 1) & (rng.random(300) < 0.5)), said(truth, np.zeros(300, bool))
    found = class_differences(Targets("multiclass", ("a", "b", "c", "never")), _wide(first), _wide(second), truth)
    assert [row.name for row in found] == ["b", "c", "a"]  # rows of b were taken for c
    for row in found:
        label = "abc".index(row.name)
        scores = [sk.f1_score(truth == label, p.argmax(1) == label) for p in (first, second)]
        assert (row.first, row.second) == pytest.approx(scores, abs=1e-6)
        assert row.support == int((truth == label).sum())
    assert found[0].difference.low > 0
    assert (found[2].difference.low, found[2].difference.high) == (0.0, 0.0)
    assert class_differences(Targets("regression"), truth * 1.0, truth * 2.0, truth) == ()


def _wide(predictions: np.ndarray) -> np.ndarray:
    return np.concatenate([predictions, np.zeros((len(predictions), 1))], axis=1)


def test_the_result_is_json_and_the_same_every_time() -> None:
    first, second, truth = sample(120, 0.3, 0.2)
    result = paired(THREE, first, second, truth, seed=3)
    assert result == paired(THREE, first, second, truth, seed=3)
    assert result != paired(THREE, first, second, truth, seed=4)
    stored: Any = json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))
    assert TypeAdapter(Paired).validate_python(stored) == result


def test_no_rows_are_refused() -> None:
    with pytest.raises(UserError, match="no usable test row"):
        paired(THREE, np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, np.int64))
