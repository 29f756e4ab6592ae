"""Standings: one posterior over all candidates, and the rules that read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np
import pytest

from tl_core.selection.outcomes import Outcomes
from tl_core.selection.standing import Standing, choose, contenders, decided, hopeless, standings


def rows(right: int, n: int, groups: np.ndarray | None = None, seed: int | None = None) -> Outcomes:
    """So many of n rows right: the first ones, or any by a seed."""
    terms = (np.arange(n) < right).astype(np.float64)[:, None]
    if seed is not None:
        terms = np.random.default_rng(seed).permutation(terms)
    return Outcomes("multiclass", terms, groups)


def stand(*, confidence: float = 0.9, seed: int = 0, **history: Outcomes | list[Outcomes]) -> dict[str, Standing]:
    rounds = {name: one if isinstance(one, list) else [one] for name, one in history.items()}
    return {one.name: one for one in standings(rounds, confidence=confidence, seed=seed)}


@pytest.mark.parametrize(
    ("right", "low", "high"),
    [
        (90, np.float64(0.8291), np.float64(0.947)),
        (50, np.float64(0.403), np.float64(0.597)),
        (1, np.float64(0.0013), np.float64(0.0471)),
        (100, np.float64(0.973), 1.0),
        (0, 0.0, np.float64(0.027)),
    ],
)
def test_an_accuracy_alone_has_a_beta_posterior(right: int, low: float, high: float) -> None:
    """Quantiles of Beta(0.7 k + 1/2, 0.7 (100 - k) + 1/2) by scipy, widened to the value where all rows agree."""
    one = stand(a=rows(right, 100))["a"]
    assert (one.low, one.high) == pytest.approx((low, high), abs=0.006)
    assert one.low <= one.value == right / 100 <= one.high


def test_a_candidate_alone_is_the_best() -> None:
    one = stand(a=rows(70, 100))["a"]
    assert (one.p_best, one.regret, one.rank, one.rank_low, one.rank_high) == (1.0, 0.0, 1, 1, 1)
    assert (one.gap, one.gap_low, one.gap_high, one.tied) == (0.0, 0.0, 0.0, True)
    assert choose([one], prefer="cost", tolerance=0.01, flops={}, params={}) == "a"
    assert hopeless([one]) == []
    assert decided([one])
    assert standings({}, confidence=0.9, seed=0) == []


def test_twins_are_tied_with_equal_chances() -> None:
    found = stand(b=rows(80, 100), a=rows(80, 100), poor=rows(20, 100))
    assert list(found) == ["a", "b", "poor"]
    assert found["a"].p_best == found["b"].p_best == pytest.approx(0.5, abs=1e-9)
    assert found["a"].regret == found["b"].regret
    assert found["b"].tied
    assert not found["poor"].tied
    assert hopeless(list(found.values())) == ["poor"]


def test_what_candidates_have_in_common_cancels() -> None:
    """The same 20 points apart: on the same hard rows, and on rows that have nothing to do with each other."""
    alike = stand(a=rows(140, 200), b=rows(120, 200))
    apart = stand(a=rows(140, 200, seed=1), b=rows(120, 200, seed=2))
    assert alike["b"].gap == apart["b"].gap == pytest.approx(0.1)
    assert alike["b"].gap_high - alike["b"].gap_low < 0.6 * (apart["b"].gap_high - apart["b"].gap_low)
    assert not alike["b"].tied


def test_probabilities_sum_to_one_and_order_does_not_matter() -> None:
    history = {f"n{i}": rows(60 + i, 100, seed=i) for i in range(8)}
    found = stand(**history)
    assert sum(one.p_best for one in found.values()) == pytest.approx(1.0)
    assert stand(**dict(reversed(history.items()))) == found
    assert stand(**history) == found
    assert stand(seed=1, **history) != found
    values = list(found.values())
    assert [one.rank for one in values] == list(range(1, 9))
    assert all(one.rank_low <= one.rank <= one.rank_high for one in values)
    assert all(one.gap_low <= one.gap <= one.gap_high and one.regret >= 0 for one in values)
    assert values[0].p_best == max(one.p_best for one in values)


def test_another_candidate_leaves_the_draws_of_the_rest() -> None:
    two = stand(a=rows(80, 100), b=rows(75, 100, seed=1))
    three = stand(a=rows(80, 100), b=rows(75, 100, seed=1), c=rows(10, 100))
    assert (three["b"].low, three["b"].gap_low) == (two["b"].low, two["b"].gap_low)


def test_confidence_widens_all_intervals() -> None:
    history = {"a": rows(80, 100, seed=0), "b": rows(75, 100, seed=1)}
    narrow, wide = stand(confidence=0.6, **history)["b"], stand(confidence=0.99, **history)["b"]
    assert wide.low < narrow.low < narrow.high < wide.high
    assert wide.gap_low < narrow.gap_low < narrow.gap_high < wide.gap_high


def test_who_left_early_is_not_blamed_for_it() -> None:
    """All reach 60 of 100 on few rows; the survivor 90% on more rows, as anyone would."""
    found = stand(a=[rows(60, 100), rows(180, 200)], early=[rows(60, 100)], worse=[rows(40, 100)])
    assert found["early"].gap == pytest.approx(0.0)
    assert found["early"].tied
    assert found["worse"].gap == pytest.approx(0.2)
    assert (found["early"].rows, found["early"].value) == (100, 0.6)
    assert found["early"].low < 0.6 < found["early"].high
    assert found["a"].looks == 2
    assert found["early"].looks == 1
    before = stand(a=[rows(60, 100)], worse=[rows(40, 100)])["worse"]
    width = found["worse"].gap_high - found["worse"].gap_low
    assert width == pytest.approx(before.gap_high - before.gap_low, rel=0.3)


def test_who_joined_late_is_no_measure_of_what_rows_bring() -> None:
    """A view of a finalist comes in at the last round, and leads."""
    found = stand(a=[rows(60, 100), rows(180, 200)], early=[rows(60, 100)], view=[rows(190, 200)])
    assert list(found) == ["view", "a", "early"]
    assert found["early"].gap == found["a"].gap == pytest.approx(0.05)


def test_groups_are_weighed_as_one() -> None:
    """Rows of a group all right or all wrong: 20 groups tell no more than 20 rows."""
    groups = np.repeat(np.arange(20), 10)
    terms = np.repeat((np.arange(20) < 14).astype(np.float64), 10)[:, None]
    grouped = stand(a=Outcomes("multiclass", terms, groups))["a"]
    loose = stand(a=Outcomes("multiclass", terms))["a"]
    assert grouped.high - grouped.low > 2.4 * (loose.high - loose.low)
    assert stand(a=Outcomes("multiclass", terms, np.zeros(200, np.int64)))["a"] == loose


def test_few_groups_that_agree_do_not_hide_the_rows_spread() -> None:
    terms = np.tile(np.arange(40) < 28, 4).astype(np.float64)[:, None]  # four groups of 70% each
    grouped = stand(a=Outcomes("multiclass", terms, np.repeat(np.arange(4), 40)))["a"]
    loose = stand(a=Outcomes("multiclass", terms))["a"]
    assert grouped.low <= loose.low + 0.005
    assert grouped.high >= loose.high - 0.005


def test_elimination_is_stricter_at_every_look() -> None:
    def seen(ahead: float, looks: int) -> list[Standing]:
        found = list(stand(a=rows(80, 100), b=rows(60, 100)).values())
        return [replace(found[0], looks=looks), replace(found[1], ahead=ahead, tied=False)]

    assert hopeless(seen(0.004, 1)) == ["b"]
    assert hopeless(seen(0.006, 1)) == []
    assert hopeless(seen(0.004, 2)) == []
    assert hopeless(seen(0.001, 2)) == ["b"]


def test_a_race_is_decided_by_certainty_or_by_little_to_lose() -> None:
    clear = list(stand(a=rows(90, 100), b=rows(50, 100)).values())
    assert decided(clear)
    open_ = list(stand(a=rows(80, 100, seed=0), b=rows(79, 100, seed=1)).values())
    assert not decided(open_)
    assert decided(open_, tolerance=1.0)
    assert decided(open_, confidence=0.5)


def pick(
    found: Mapping[str, Standing], prefer: str, flops: dict[str, int | None], params: dict[str, int | None]
) -> str:
    return choose(list(found.values()), prefer=prefer, tolerance=0.01, flops=flops, params=params)  # type: ignore[arg-type]


def test_the_cheapest_of_those_tied_is_taken() -> None:
    found = stand(
        large=rows(820, 1000, seed=0), small=rows(815, 1000, seed=1), tiny=rows(800, 1000, seed=2), bad=rows(300, 1000)
    )
    assert found["tiny"].tied  # but more than the tolerance behind
    flops: dict[str, int | None] = {"large": 100, "small": 10, "tiny": 1, "bad": 1}
    params: dict[str, int | None] = {"large": 5, "small": 50, "tiny": 1, "bad": 1}
    assert pick(found, "cost", flops, params) == "small"
    assert pick(found, "size", flops, params) == "large"
    assert pick(found, "accuracy", flops, params) == "large"
    assert pick(found, "cost", {"large": 100, "small": None}, params) == "large"
    assert pick(found, "cost", {}, params) == "large"  # nothing known of the cost: the smaller
    assert pick(found, "cost", {}, {}) == "large"  # nor of the size: the better


def test_who_left_the_race_is_not_taken() -> None:
    """Ahead by what the others have lost since it left, or tied with them: neither was measured."""
    found = list(stand(early=rows(82, 100, seed=0), on=rows(81, 100, seed=1), third=rows(80, 100, seed=2)).values())
    assert [one.name for one in contenders(found, tolerance=0.02)] == ["early", "on", "third"]
    assert [one.name for one in contenders(found, tolerance=0.015, out={"early"})] == ["on", "third"]
    costs: dict[str, int | None] = {"early": 1, "on": 2, "third": 3}
    taken = choose(found, prefer="cost", tolerance=0.02, flops=costs, params=costs, out={"early"})
    assert taken == "on"


def test_a_standing_is_plain_json() -> None:
    for one in stand(a=rows(80, 100), b=rows(70, 100)).values():
        assert json.loads(json.dumps(asdict(one), allow_nan=False)) == asdict(one)
