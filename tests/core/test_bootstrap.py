"""Intervals: coverage, determinism, groups, and honesty where resampling says nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student

from tl_core.evaluation import Interval, evaluate_predictions
from tl_core.evaluation.bootstrap import percentile_interval, reach_of, resample_weights, units_of
from tl_core.intervals import wilson
from tl_core.types import Targets

THREE = Targets("multiclass", ("a", "b", "c"))


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes)[labels]


@pytest.mark.parametrize(("right", "n"), [(0, 7), (7, 7), (13, 40), (399, 400)])
def test_wilson_is_the_score_interval(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(0.9, method="wilson")
    assert wilson(right / n, n, 0.9) == pytest.approx((expected.low, expected.high))


def test_a_90_percent_interval_covers_the_truth_in_about_90_percent_of_the_draws() -> None:
    rng = np.random.default_rng(5)
    share, n, trials, hits = 0.8, 150, 300, 0
    for trial in range(trials):
        right = (rng.random(n) < share).astype(np.float64)
        draws = np.asarray([w @ right / n for w in resample_weights(np.arange(n), 200, seed=trial)])
        interval = percentile_interval(right.mean(), draws, 0.9, n)
        hits += interval.low <= share <= interval.high
    assert 0.85 <= hits / trials <= 0.95


def test_whole_groups_cover_where_rows_alone_are_far_too_sure() -> None:
    rng = np.random.default_rng(6)
    groups, size, trials = 40, 20, 120
    units, rows = np.repeat(np.arange(groups), size), np.arange(groups * size)
    hits = {"groups": 0, "rows": 0}
    for trial in range(trials):
        right = (rng.random(rows.size) < rng.beta(4, 1, groups)[units]).astype(np.float64)  # mean 0.8
        for name, what in (("groups", units), ("rows", rows)):
            draws = np.asarray([w @ right / w.sum() for w in resample_weights(what, 150, seed=trial)])
            interval = percentile_interval(right.mean(), draws, 0.9, None)
            hits[name] += interval.low <= 0.8 <= interval.high
    assert 0.82 <= hits["groups"] / trials <= 0.97
    assert hits["rows"] / trials < 0.75


def test_groups_are_drawn_whole_and_the_seed_decides_all() -> None:
    units = units_of(6, ["x", "y", "x", "z", "z", "z"])
    drawn = list(resample_weights(units, 20, seed=1))
    for weights in drawn:
        assert weights[0] == weights[2]
        assert weights[3] == weights[4] == weights[5]
        assert weights[0] + weights[1] + weights[3] == 3
    assert np.array_equal(drawn, list(resample_weights(units, 20, seed=1)))
    assert not np.array_equal(drawn, list(resample_weights(units, 20, seed=2)))


@pytest.mark.parametrize("units", [4, 20, 300])
def test_few_units_reach_as_far_as_student_says(units: int) -> None:
    assert reach_of(0.9, units) == pytest.approx(student.ppf(0.95, units - 1) * (units / (units - 1)) ** 0.5, rel=0.01)
    assert reach_of(0.9, None) == reach_of(0.9, 1) == pytest.approx(1.645, abs=1e-3)


def test_groups_must_match_the_rows() -> None:
    with pytest.raises(ValueError, match="2 groups for 3 rows"):
        units_of(3, ["a", "b"])


@pytest.mark.parametrize("right", [True, False])
def test_a_collapsed_interval_is_wilson_and_says_so(right: bool) -> None:
    truth = np.asarray([0, 1, 2] * 10)
    predictions = one_hot(truth if right else (truth + 1) % 3, 3)
    result = evaluate_predictions("multiclass", THREE, predictions, truth, confidence=0.9, resamples=100, seed=0)
    low, high = wilson(float(right), 30, 0.9)
    assert result.summary["accuracy"] == Interval.of(float(right), low, high, "wilson")
    macro = result.summary["macro_f1"]
    low, high = wilson(float(right), 10, 0.9)  # each class has ten rows
    assert macro == Interval.of(float(right), low, high, "wilson mean")
    assert any("same accuracy: Wilson" in note for note in result.notes)
    assert any("macro F1, balanced accuracy" in note and "mean of the classes' Wilson" in note for note in result.notes)


def test_a_collapse_over_groups_counts_groups_not_rows() -> None:
    truth = np.asarray([0, 1] * 50)
    groups = ["first", "second"] * 2 + ["third", "fourth"] * 48
    targets = Targets("multiclass", ("a", "b"))
    result = evaluate_predictions(
        "multiclass", targets, one_hot(truth, 2), truth, confidence=0.9, resamples=100, seed=0, groups=groups
    )
    low, _ = wilson(1.0, 4, 0.9)
    assert result.summary["accuracy"].low == round(low, 6)
    assert any("Only 4 groups" in note for note in result.notes)


def test_over_few_groups_that_agree_the_interval_is_no_narrower_than_over_rows() -> None:
    """Three groups of the same accuracy: resampling them alone would claim to know it to the digit."""
    truth = np.asarray([0, 1] * 60)
    wrong = np.arange(120) % 40 < 4
    predictions = one_hot(np.where(wrong, 1 - truth, truth), 2)
    targets = Targets("multiclass", ("a", "b"))

    def accuracy(groups: list[str] | None) -> Interval:
        result = evaluate_predictions(
            "multiclass", targets, predictions, truth, confidence=0.9, resamples=300, seed=0, groups=groups,
            floors={"majority": one_hot(np.zeros(120, dtype=int), 2)},
        )  # fmt: skip
        gain = result.floors["majority"].gain
        assert gain.high - gain.low > 0.05
        return result.summary["accuracy"]

    grouped, rows = accuracy([f"g{i // 40}" for i in range(120)]), accuracy(None)
    assert (grouped.low, grouped.high) == (rows.low, rows.high)
    assert rows.high - rows.low > 0.05


def test_one_group_falls_back_to_rows_and_says_what_that_means() -> None:
    truth = np.asarray([0, 1] * 20)
    predictions = one_hot(np.where(np.arange(40) < 10, 1 - truth, truth), 2)
    targets = Targets("multiclass", ("a", "b"))
    result = evaluate_predictions(
        "multiclass", targets, predictions, truth, confidence=0.9, resamples=100, seed=0, groups=["only"] * 40
    )
    assert result.summary["accuracy"].low < 0.75 < result.summary["accuracy"].high
    assert any("one single group" in note for note in result.notes)


@pytest.mark.parametrize("units", [4, 5, 10, 50, 1000])
def test_percentiles_of_few_units_move_outwards_by_students_quantile(units: int) -> None:
    draws = np.random.default_rng(0).normal(size=200_000)
    plain = percentile_interval(0.0, draws, 0.9, None)
    spread = percentile_interval(0.0, draws, 0.9, None, units=[units])
    reach = student.ppf(0.95, units - 1) * np.sqrt(units / (units - 1))
    assert (plain.low, plain.high) == pytest.approx((-1.645, 1.645), abs=0.02)
    assert (spread.low, spread.high) == pytest.approx((-reach, reach), rel=0.02, abs=0.02)


def test_percentiles_follow_a_value_that_resampling_shifts() -> None:
    draws = np.random.default_rng(0).normal(-0.3, 1.0, 100_000)  # resampled, the number is too small by 0.3
    interval = percentile_interval(0.0, draws, 0.9, None, units=[10_000])
    assert (interval.low, interval.high) == pytest.approx((0.3 - 1.645, 0.3 + 1.645), abs=0.03)
    tied = percentile_interval(0.5, np.repeat([0.4, 0.5, 0.6], 100), 0.9, None, units=[10_000])
    assert (tied.low, tied.high) == (0.4, 0.6)  # draws equal to the value count half on either side
    far = percentile_interval(5.0, draws, 0.9, None, units=[10_000])
    assert far.low < 1.5  # not taken for a shift of all of that


def test_the_interval_always_holds_its_value() -> None:
    assert Interval.of(0.5, 0.6, 0.7) == Interval(0.5, 0.5, 0.7)
    assert str(Interval.of(-0.0000001, 0, 0).value) == "0.0"
