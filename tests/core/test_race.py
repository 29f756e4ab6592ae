"""The race as pure logic: rounds, elimination, the budget, the clock, and candidates that drop out."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tl_core.selection.outcomes import Outcomes
from tl_core.selection.race import (
    ALONE,
    CERTAIN,
    LAST_LEFT,
    LEADERS_LOST,
    NO_ROOM,
    ROWS_USED,
    Budget,
    DroppedOut,
    Entrant,
    Judgement,
    Progress,
    Race,
    Round,
    judge_by,
    run_race,
)
from tl_core.selection.standing import standings

SIZES = (200, 400, 800)
SPEED = 1e9


def right(accuracy: float, rows: int, seed: int = 0) -> Outcomes:
    """Rows of which a share is right; more rows begin with the same ones."""
    drawn = np.random.default_rng(seed).random(2000)[:rows]
    return Outcomes("multiclass", (drawn < accuracy)[:, None].astype(np.float64))


def patient(history: Mapping[str, Sequence[Outcomes]]) -> Judgement:
    return Judgement()


@dataclass
class Field:
    """Candidates by name: (accuracy, FLOPs per row); who fails at which number of rows; what was asked of whom."""

    of: dict[str, tuple[float, float | None]]
    fails: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    weighed: list[str] = field(default_factory=list)

    def weigh(self, name: str) -> float | None:
        self.weighed.append(name)
        if self.fails.get(name) == 0:
            raise DroppedOut("no weights")
        return self.of[name][1]

    def measure(self, name: str, rows: int) -> Outcomes:
        self.asked.append((name, rows))
        if rows >= self.fails.get(name, 10**9):
            raise DroppedOut(f"failed at {rows}")
        return right(self.of[name][0], rows)

    def run(
        self,
        *,
        minutes: float = 1e6,
        judge: Callable[[Mapping[str, Sequence[Outcomes]]], Judgement] = patient,
        stated: Mapping[str, float | None] | None = None,
        order: Sequence[str] | None = None,
        sizes: Sequence[int] = SIZES,
        **options: Any,
    ) -> Race:
        names = order or list(self.of)
        stated = stated if stated is not None else {name: flops for name, (_, flops) in self.of.items()}
        return run_race(
            [Entrant(name, stated.get(name)) for name in names], sizes,
            weigh=self.weigh, measure=self.measure, judge=judge,
            budget=Budget(minutes, SPEED, options.pop("opening", 0.0)),
            time_left=options.pop("time_left", lambda: 1.0), **options,
        )  # fmt: skip


def minutes_for(flops: float) -> float:
    return flops / SPEED / 60


def test_survivors_run_all_rounds_the_cheapest_first() -> None:
    entrants = Field({"large": (0.9, 30), "small": (0.8, 10), "middle": (0.85, 20)})
    race = entrants.run()
    assert entrants.asked == [(name, rows) for rows in SIZES for name in ("small", "middle", "large")]
    assert race.stopped == ROWS_USED
    assert race.rounds == [Round(rows, 3, ()) for rows in SIZES]
    assert {name: [len(seen) for seen in found] for name, found in race.history.items()} == {
        name: list(SIZES) for name in ("large", "middle", "small")
    }
    assert race.planned == 800 * 60


def test_who_is_hopeless_leaves_and_the_race_ends_with_the_last() -> None:
    def judge(history: Mapping[str, Sequence[Outcomes]]) -> Judgement:
        return Judgement(frozenset({400: {"c"}, 800: {"b"}}.get(len(history["a"][-1]), ())))

    entrants = Field({"a": (0.9, 1), "b": (0.8, 1), "c": (0.1, 1)})
    race = entrants.run(judge=judge, sizes=(200, 400, 800, 1600))
    assert race.stopped == CERTAIN
    assert race.rounds == [Round(200, 3, ()), Round(400, 3, ("c",)), Round(800, 2, ("b",))]
    assert race.eliminated["c"] == "all but certainly not the best after 400 samples"
    assert race.survivors == ["a"]
    assert ("c", 800) not in entrants.asked


def test_it_stops_as_soon_as_the_leader_is_certain() -> None:
    race = Field({"a": (0.9, 1), "b": (0.8, 1)}).run(judge=lambda _: Judgement(decided=True))
    assert (race.stopped, len(race.rounds), sorted(race.survivors)) == (CERTAIN, 1, ["a", "b"])


def test_the_real_judge_lets_go_of_the_hopeless() -> None:
    entrants = Field({"good": (0.95, 1), "good too": (0.94, 1), "poor": (0.3, 1)})
    race = entrants.run(judge=judge_by(confidence=0.9, tolerance=0.0, seed=0))
    assert race.rounds[0].eliminated == ("poor",)
    assert len(race.history["poor"]) == 1
    clear = Field({"good": (0.95, 1), "poor": (0.3, 1)}).run(judge=judge_by(confidence=0.9, tolerance=0.01, seed=0))
    assert (clear.stopped, len(clear.rounds)) == (CERTAIN, 1)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_given_decides_nothing(seed: int) -> None:
    of: dict[str, tuple[float, float | None]] = {f"n{i}": (0.5 + i / 20, float(i * 7 % 5)) for i in range(8)}
    fails = {"n3": 0, "n5": 400}
    shuffled = random.Random(seed).sample(list(of), len(of))
    results = []
    for order in (list(of), shuffled):
        entrants = Field(of, fails)
        race = entrants.run(
            order=order, judge=judge_by(confidence=0.9, tolerance=0.01, seed=0), minutes=minutes_for(9e3)
        )
        results.append((entrants.asked, race.rounds, race.stopped, race.dropped, race.eliminated, race.planned))
    assert results[0] == results[1]


def test_a_round_that_does_not_fit_is_not_begun() -> None:
    entrants = Field({"a": (0.9, 10), "b": (0.8, 20)})
    assert entrants.run(minutes=minutes_for(30 * 400)).stopped == NO_ROOM
    assert {rows for _, rows in entrants.asked} == {200, 400}
    assert Field(entrants.of).run(minutes=minutes_for(30 * 800)).stopped == ROWS_USED


def test_opening_counts_in_each_round() -> None:
    """Two candidates at 3 s a round: 6 s fit one round, 12 s fit two."""
    for seconds, rounds in ((6, 1), (11.9, 1), (12, 2)):
        race = Field({"a": (0.9, 0), "b": (0.8, 0)}).run(minutes=seconds / 60, opening=3.0)
        assert len(race.rounds) == rounds


def test_who_is_too_slow_drops_out_with_an_estimate() -> None:
    entrants = Field({"small": (0.8, 1e6), "large": (0.9, 4.2e9)})
    race = entrants.run(minutes=5)
    assert race.dropped == {
        "large": "too slow: about 14 min for 200 samples on this machine; select.minutes is 5: raise it, or name this "
        "backbone alone"
    }
    assert race.stopped == LAST_LEFT
    assert entrants.weighed == ["small"]  # nothing was opened, or downloaded, to find that out


def test_the_cheapest_are_served_first() -> None:
    entrants = Field({"a": (0.9, 3e6), "b": (0.8, 1e6), "c": (0.7, 2e6)})
    race = entrants.run(minutes=minutes_for(200 * 3.5e6), judge=patient)
    assert sorted(race.history) == ["b", "c"]
    assert race.dropped["a"] == (
        "too slow: about 1 s for 200 samples on this machine; select.minutes is 0.0116667, of which cheaper "
        "candidates take most: raise it, or name this backbone alone"
    )
    assert race.stopped == NO_ROOM


def test_a_race_is_never_empty_for_cost() -> None:
    entrants = Field({"a": (0.9, 1e12), "b": (0.8, 2e12)})
    race = entrants.run(minutes=0.01)
    assert entrants.asked == [("a", 200)]
    assert (list(race.history), list(race.dropped), race.stopped) == (["a"], ["b"], LAST_LEFT)
    first_fails = Field({"a": (0.9, 1e12), "b": (0.8, 2e12)}, {"a": 200}).run(minutes=0.01)
    assert (list(first_fails.history), first_fails.dropped["a"]) == (["b"], "failed at 200")


def test_a_single_candidate_runs_one_round_whatever_it_costs() -> None:
    entrants = Field({"a": (0.9, 1e15)})
    race = entrants.run(minutes=0.01)
    assert (entrants.asked, race.stopped, race.rounds) == ([("a", 200)], ALONE, [Round(200, 1, ())])


def test_what_is_stated_is_read_for_rows_as_short_as_they_are() -> None:
    """A catalogue's FLOPs are of a usual text; where texts cost a tenth, nobody drops out by what is stated."""
    entrants = Field({"small": (0.8, 1e6), "large": (0.9, 1e8)})
    race = entrants.run(minutes=minutes_for(200 * 1.5e8), stated={"small": 1e7, "large": 1e9})
    assert sorted(race.history) == ["large", "small"]
    assert race.flops == {"small": 1e6, "large": 1e8}
    counted = Field({"small": (0.8, 1e6), "large": (0.9, 4e8)})
    race = counted.run(minutes=minutes_for(200 * 3e8), stated={"small": 1e6, "large": 3.1e8})
    assert counted.weighed == ["small", "large"]  # near enough to the limit to be looked at
    assert race.dropped["large"].startswith("too slow")


def test_who_states_nothing_is_weighed_first_and_the_uncountable_come_last() -> None:
    entrants = Field({"a": (0.9, 30), "b": (0.8, None), "c": (0.7, 10)})
    race = entrants.run(stated={"a": 30, "b": None, "c": None}, sizes=(200,))
    assert entrants.asked == [("c", 200), ("a", 200), ("b", 200)]
    assert sorted(entrants.weighed) == ["a", "b", "c"]
    assert race.flops == {"a": 30, "b": None, "c": 10}


def test_dropouts_do_not_stop_the_others() -> None:
    entrants = Field(
        {"fine": (0.9, 1), "fine too": (0.9, 1), "no weights": (0.9, 1), "first": (0.9, 1), "later": (0.9, 1)},
        {"no weights": 0, "first": 200, "later": 800},
    )
    race = entrants.run()
    assert sorted(race.history) == ["fine", "fine too"]
    assert race.dropped == {"no weights": "no weights", "first": "failed at 200", "later": "failed at 800"}
    assert [one.entered for one in race.rounds] == [5, 3, 3]
    assert race.stopped == ROWS_USED
    assert Field(entrants.of, dict.fromkeys(entrants.of, 0)).run().history == {}


def test_where_all_leaders_drop_out_those_behind_them_are_left() -> None:
    def judge(history: Mapping[str, Sequence[Outcomes]]) -> Judgement:
        return Judgement(frozenset({"c", "d"} & set(history)))

    entrants = Field({"a": (0.9, 1), "b": (0.9, 1), "c": (0.5, 1), "d": (0.4, 1)}, {"a": 400, "b": 400})
    race = entrants.run(judge=judge)
    assert race.stopped == LEADERS_LOST
    assert (race.survivors, race.eliminated) == (["c", "d"], {})
    one = Field({"a": (0.9, 1), "b": (0.9, 1), "c": (0.5, 1)}, {"a": 400, "b": 400}).run(judge=judge)
    assert (one.stopped, one.survivors) == (LAST_LEFT, ["c"])


def test_other_exceptions_end_the_race() -> None:
    def measure(name: str, rows: int) -> Outcomes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_race([Entrant("a", 1), Entrant("b", 1)], SIZES, weigh=lambda _: 1.0, measure=measure, judge=patient,
                 budget=Budget(1, SPEED), time_left=lambda: 1.0)  # fmt: skip


def test_the_clock_stops_a_race_that_runs_away() -> None:
    left = iter([1.0, 1.0, 1.0, -1.0, -1.0])  # asked before each measurement but the first
    entrants = Field({"a": (0.9, 1), "b": (0.8, 1)})
    race = entrants.run(minutes=5, time_left=lambda: next(left))
    assert entrants.asked == [("a", 200), ("b", 200), ("a", 400), ("b", 400)]
    assert race.stopped == "the clock: far more than select.minutes (5) had gone in round 3"
    first = Field({"a": (0.9, 1), "b": (0.8, 1), "c": (0.7, 1)}).run(minutes=5, time_left=lambda: -1.0)
    assert sorted(first.history) == ["a"]
    assert first.dropped["c"] == "the clock: far more than select.minutes (5) had gone in round 1 before its turn"


def test_outcomes_of_a_round_that_the_clock_cut_short_count() -> None:
    left = iter([1.0, 1.0, -1.0])
    race = Field({"a": (0.9, 1), "b": (0.8, 1)}).run(time_left=lambda: next(left))
    assert [len(race.history[name][-1]) for name in ("a", "b")] == [400, 200]
    assert [one.rows for one in standings(race.history, confidence=0.9, seed=0)] == [400, 200]


def test_the_watch_is_told_who_leads_on_rows_that_all_have_seen() -> None:
    told: list[Progress] = []
    Field({"a": (0.6, 1), "b": (0.9, 2)}).run(sizes=(200, 400), watch=told.append)
    assert [(p.round, p.rows, p.done, p.name, p.leader) for p in told] == [
        (1, 200, 0, "a", None),
        (1, 200, 1, "b", "a"),
        (2, 400, 0, "a", "b"),
        (2, 400, 1, "b", "b"),
    ]
    assert told[-1].value == right(0.9, 200).metric()
