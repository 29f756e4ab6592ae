"""Subgroups: intervals that hold together, no false alarms, and what is said of small and missing values."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from tl_core.diagnostics.gaps import Rated, gaps
from tl_core.diagnostics.results import Subgroups
from tl_core.diagnostics.subgroups import OTHERS, subgroups
from tl_core.evaluation.bootstrap import units_of
from tl_core.evaluation.metrics import measure
from tl_core.types import Targets

TWO = Targets("multiclass", ("no", "yes"))
TAGS = Targets("multilabel", ("a", "b", "c"))
VALUE = Targets("regression")


def answers(rng: np.random.Generator, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and truth of two classes, right where told."""
    truth = rng.integers(2, size=len(right))
    return np.eye(2)[np.where(right, truth, 1 - truth)] * 0.8 + 0.1, truth


@pytest.mark.parametrize("accuracy", [0.1, 0.7, 0.97])
@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.5, 0.3, 0.1, 0.05, 0.05), (0.05,) * 20])
def test_without_a_difference_there_is_rarely_an_alarm(accuracy: float, shares: tuple[float, ...]) -> None:
    alarms = held = 0
    sets = 100
    for seed in range(sets):
        rng = np.random.default_rng(seed)
        said, truth = answers(rng, rng.random(300) < accuracy)
        values = [f"v{v}" for v in rng.choice(len(shares), 300, p=shares)]
        found = subgroups(said, truth, TWO, values, "device", resamples=100, seed=seed)
        assert found is not None
        alarms += found.state == "warn"
        held += all(line.gap.low <= 0 <= line.gap.high for line in found.groups)
    assert alarms <= 0.1 * sets
    assert held >= 0.85 * sets


def test_whole_groups_that_differ_by_chance_are_rarely_an_alarm() -> None:
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        group = rng.integers(40, size=400)
        said, truth = answers(rng, rng.random(400) < rng.beta(4, 2, size=40)[group])
        values = rng.choice(["old", "young"], 40)[group].tolist()
        found = subgroups(said, truth, TWO, values, "age", resamples=100, groups=[str(g) for g in group], seed=seed)
        assert found is not None
        alarms += found.state == "warn"
    assert alarms <= 9


def test_a_worse_value_is_named_with_its_gap() -> None:
    rng = np.random.default_rng(0)
    values = rng.choice(["phone", "desk", "camera"], 600).tolist()
    right = rng.random(600) < np.where(np.array(values) == "phone", 0.6, 0.9)
    said, truth = answers(rng, right)
    found = subgroups(said, truth, TWO, values, "device")
    assert found is not None
    assert (found.state, found.worst) == ("warn", "phone")
    worst = found.groups[0]
    assert worst.name == "phone"
    phone = np.array(values) == "phone"
    assert worst.rows == phone.sum()
    assert worst.score.value == pytest.approx(right[phone].mean(), abs=1e-6)
    assert worst.gap.value == pytest.approx(right[phone].mean() - right[~phone].mean(), abs=1e-6)
    assert worst.gap.low < worst.gap.value < worst.gap.high < 0
    assert [line.gap.value for line in found.groups] == sorted(line.gap.value for line in found.groups)
    assert found.text.startswith(f"Results depend on device: accuracy is {worst.score.value:.3f} where it is 'phone'")
    assert found.text.endswith("lower (90% interval, for all 3 values together).")
    adapter = TypeAdapter(Subgroups)
    assert adapter.validate_json(adapter.dump_json(found)) == found
    assert subgroups(said, truth, TWO, values, "device") == found


def test_more_values_make_wider_intervals() -> None:
    rng = np.random.default_rng(1)
    said, truth = answers(rng, rng.random(400) < 0.8)
    half = ["a"] * 200
    few = subgroups(said, truth, TWO, half + ["b"] * 200, "c")
    many = subgroups(said, truth, TWO, half + [f"b{i % 10}" for i in range(200)], "c")
    assert few is not None
    assert many is not None
    one, other = (next(g.gap for g in found.groups if g.name == "a") for found in (few, many))
    assert one.value == other.value
    assert other.high - other.low > 1.1 * (one.high - one.low)


def test_a_small_part_whose_rows_agree_still_has_an_interval() -> None:
    rng = np.random.default_rng(2)
    said, truth = answers(rng, np.r_[np.zeros(10, bool), rng.random(200) < 0.1])
    found = subgroups(said, truth, TWO, ["rare"] * 10 + ["usual"] * 200, "kind")
    assert found is not None
    assert found.worst is None
    rare = next(line for line in found.groups if line.name == "rare")
    assert rare.gap.high > 0
    assert rare.score.method == "wilson"


def test_small_and_missing_values_are_said() -> None:
    rng = np.random.default_rng(3)
    said, truth = answers(rng, rng.random(100) < 0.8)
    values = ["a"] * 40 + ["b"] * 30 + ["c"] * 6 + ["d"] * 6 + [None] * 18
    found = subgroups(said, truth, TWO, values, "kind")
    assert found is not None
    assert {line.name: line.rows for line in found.groups} == {"a": 40, "b": 30, OTHERS: 12}
    assert found.text.endswith(" 2 values of too few rows: counted together as 'other values'. 18 rows have no value.")
    found = subgroups(said, truth, TWO, ["a"] * 50 + ["b"] * 44 + ["c"] * 6, "kind")
    assert found is not None
    assert found.text.endswith(" 1 value of too few rows: only counted among the others.")


def test_few_groups_reach_further() -> None:
    """Four groups, right on 40 to 100%, against forty that are all right on 80%: only the four tell a spread."""
    share = np.r_[0.4, 0.6, 0.8, 1.0, np.full(40, 0.8)]
    right = (np.arange(25) < 25 * share[:, None]).ravel()
    group = np.repeat(np.arange(44), 25)
    rated = Rated("multiclass", right.astype(np.float64), np.ones(len(right)))
    (found,) = gaps(
        rated, np.where(group < 4, 0, -1), comparisons=1, confidence=0.9, resamples=2000, seed=0,
        groups=[f"g{number}" for number in group],
    )  # fmt: skip
    deviation = share[:4].std() / 2  # of a resample's mean
    reach = 2.353 * (4 / 3) ** 0.5 * deviation  # Student's quantile of three degrees of freedom
    assert found.gap.value == pytest.approx(-0.1)
    assert reach <= found.gap.high - found.gap.value <= 1.2 * reach  # how many of the four are drawn varies as well
    assert found.score.low < 0.5
    assert found.score.high > 0.9


def test_a_value_that_is_a_single_group_is_no_proof() -> None:
    rng = np.random.default_rng(4)
    said, truth = answers(rng, np.r_[rng.random(100) < 0.4, rng.random(300) < 0.95])
    groups = ["g0"] * 100 + [f"g{1 + i % 12}" for i in range(300)]
    found = subgroups(said, truth, TWO, ["x"] * 100 + ["y"] * 300, "accent", groups=groups)
    assert found is not None
    assert found.worst == "x"
    assert "All these rows are one single group, so this may be that group's doing alone." in found.text
    by_group = subgroups(said, truth, TWO, groups, "speaker", groups=groups)
    assert by_group is not None
    assert by_group.worst == "g0"


def test_enough_rows_without_a_gap_are_fine_and_few_are_unclear() -> None:
    rng = np.random.default_rng(5)
    said, truth = answers(rng, rng.random(4000) < 0.9)
    found = subgroups(said, truth, TWO, rng.choice(["a", "b"], 4000).tolist(), "side")
    assert found is not None
    assert found.state == "ok"
    assert found.text.startswith("No value of side does surely worse than the others, and none can be more than")
    found = subgroups(said[:60], truth[:60], TWO, rng.choice(["a", "b"], 60).tolist(), "side")
    assert found is not None
    assert found.state == "unclear"
    assert found.text.startswith("Can't tell whether results depend on side: where it is ")


def test_where_there_is_nothing_to_compare() -> None:
    rng = np.random.default_rng(6)
    said, truth = answers(rng, rng.random(50) < 0.8)
    assert subgroups(said, truth, TWO, ["a"] * 50, "c") is None
    assert subgroups(said, truth, TWO, [None] * 50, "c") is None
    assert subgroups(said, truth, TWO, ["a"] * 45 + ["b"] * 5, "c") is None
    assert subgroups(np.zeros(50), np.ones(50), VALUE, ["a", "b"] * 25, "c") is None
    with pytest.raises(ValueError, match="49 values for 50 rows"):
        subgroups(said, truth, TWO, ["a"] * 49, "c")


@pytest.mark.parametrize("targets", [TWO, TAGS, VALUE])
def test_on_all_rows_the_ratio_is_the_watched_metric(targets: Targets) -> None:
    rng = np.random.default_rng(7)
    said: np.ndarray = rng.dirichlet([1, 1], 80)
    truth: np.ndarray = rng.integers(2, size=80)
    if targets is TAGS:
        said, truth = rng.random((80, 3)), (rng.random((80, 3)) < 0.4).astype(np.float32)
    elif targets is VALUE:
        truth = rng.normal(size=80)
        said = truth + rng.normal(0, 0.5, 80)
    rated = Rated.of(said, truth, targets)
    assert rated is not None
    assert rated.metric() == pytest.approx(measure(targets, said, truth, units_of(80, None)).point()[0], abs=1e-6)


def test_values_that_are_alike_are_not_worse_for_it() -> None:
    rng = np.random.default_rng(8)
    narrow = np.array([True] * 150 + [False] * 150)
    truth = rng.normal(0, np.where(narrow, 0.1, 3.0))
    said = truth + rng.normal(0, 0.2, 300)
    names = ["narrow" if n else "wide" for n in narrow]
    found = subgroups(said, truth, VALUE, names, "range")
    assert found is not None
    assert found.state == "ok"
    worse = subgroups(said + np.where(narrow, 2.0, 0.0), truth, VALUE, names, "range")
    assert worse is not None
    assert worse.worst == "narrow"
    assert "0.73 to 0.92 lower" in worse.text


def test_labels_of_one_value_may_be_missed() -> None:
    rng = np.random.default_rng(9)
    truth = (rng.random((400, 3)) < 0.4).astype(np.float32)
    said = np.where(rng.random((400, 3)) < 0.1, 1 - truth, truth) * 0.8 + 0.1
    said[:100] = np.where(rng.random((100, 3)) < 0.4, 0.1, said[:100])
    found = subgroups(said, truth, TAGS, ["a"] * 100 + ["b"] * 300, "site")
    assert found is not None
    assert found.worst == "a"
    assert "micro F1 is" in found.text
