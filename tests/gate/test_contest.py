"""What a decision's page shows of the rows: who is right where, what new classes have, how much room there is."""

from __future__ import annotations

import json
from dataclasses import replace

import decisions
import numpy as np
import pytest

from tl_core.config import GateConfig
from tl_core.errors import FormatError
from tl_core.gate import Asked, Candidate, freeze, judge
from tl_core.report import contest as module
from tl_core.report.contest import Contest, Cost, contest
from tl_core.types import Task

from .material import Row, answers, manifest, rows

COST = Cost(2.0, 10.0)
KNOWN = [*rows(40, "train", name="seen"), *rows(60, "test")]
NEW = [Row(f"fresh {i}", "ab"[i % 2], "test") for i in range(10)] + [Row("fresh val", "a", "val")]


def held(
    wrong: list[list[int]], lines: list[Row] = KNOWN + NEW, champion: tuple[str, ...] = ("a", "b"), size: int = 10
) -> Contest:
    """Both models on the test rows of the data, each wrong on some of them by their place."""
    data, before = manifest(lines), manifest(KNOWN)
    test_set = freeze(before)
    asked = Asked.of(data, test_set, before, renew_share=1.0)
    said = [
        answers(asked.truth, np.isin(np.arange(len(asked.rows)), places), asked.targets.outputs) for places in wrong
    ]
    for at, places in enumerate(wrong):  # the later a place stands in the list, the surer the model is there
        for rank, place in enumerate(places):
            said[at][place] *= 1 + 0.01 * rank
    models = [
        Candidate(name, name, classes, one)
        for name, classes, one in zip(("v1", "v2"), (champion, asked.targets.classes), said)
    ]
    decision = judge(asked, models[1], models[0], test_set, GateConfig(), resamples=100)
    return contest(
        decision, asked, data, (models[1], COST), (models[0], COST, before), lambda row: "x" * size, max_uses=50
    )


def test_rows_that_changed_sides_stand_on_the_right_one_the_surest_errors_first() -> None:
    found = held([[0, 1, 2, 3], [3, 4, 5]])
    assert (found.lost.count, found.won.count) == (2, 3)
    assert [row.id for row in found.lost.rows] == ["data.csv:45", "data.csv:44"]
    assert [row.id for row in found.won.rows] == ["data.csv:42", "data.csv:41", "data.csv:40"]
    lost = found.lost.rows[0]
    assert (lost.label, lost.champion, lost.challenger) == ("b", "b", "a")
    assert lost.champion_probability == 0.9
    assert lost.challenger_probability == pytest.approx(0.918)
    assert (lost.newest, lost.fragment) == (False, "x" * 10)


def test_rows_that_are_new_since_the_champion_are_named_and_learned_ones_left_out() -> None:
    found = held([[], list(range(60, 70))])
    assert found.lost.count == 10
    assert all(row.newest for row in found.lost.rows)
    assert "fresh val" not in {row.id for row in found.lost.rows}
    assert found.decision.test_set.newest == 10
    rule = found.decision.rule("newest")
    assert (rule.state, rule.parts[0].rows, rule.parts[0].first, rule.parts[0].second) == ("fail", 10, 1.0, 0.0)
    assert found.data is not None
    assert (found.data.added, found.data.unchanged) == (11, 100)
    moved = [replace(line, split="train") if line.text == "text 5" else line for line in KNOWN + NEW]
    assert held([[], [5]], moved).lost.count == 0


def test_few_newest_rows_say_that_they_are_too_few() -> None:
    rule = held([[60], [61]]).decision.rule("newest")
    assert rule.state == "pass"
    assert "(10 rows): 0.900 before and 0.900 now (+0.000); a fall of up to " in rule.text
    assert rule.text.endswith("Too few rows to say whether it has risen or fallen there.")
    assert "Too few" not in held([list(range(60, 70)), []]).decision.rule("newest").text


def test_new_classes_are_named_with_what_the_new_model_has() -> None:
    lines = [*KNOWN, *(Row(f"c {i}", "c", "train") for i in range(9))]
    assert [(row.name, row.rows, row.f1) for row in held([[], []], lines).new_classes] == [("c", 0, None)]
    lines = [*KNOWN, *(Row(f"c {i}", "c", "test") for i in range(9))]
    data = manifest(lines)
    asked = Asked.of(data, freeze(data), manifest(KNOWN), renew_share=1.0)
    said = answers(asked.truth, np.arange(len(asked.rows)) == 60, 3)
    models = [Candidate(n, n, c, said) for n, c in (("v1", ("a", "b")), ("v2", ("a", "b", "c")))]
    new = module._new_classes(asked, models[0], models[1])
    assert [(row.name, row.rows, row.f1) for row in new] == [("c", 9, pytest.approx(16 / 17, abs=1e-6))]


def test_there_is_room_for_so_many_rows_and_bytes() -> None:
    found = held([[], list(range(40))], size=100_000)
    assert (found.lost.count, len(found.lost.rows)) == (40, module.MAX_ROWS)
    assert sum(row.fragment is not None for row in found.lost.rows) == module.MAX_BYTES // 100_000


def test_of_values_the_nearer_one_is_told() -> None:
    task: Task = "regression"
    lines = [Row(f"text {i}", str(i), "test") for i in range(30)]
    data = manifest(lines, task)
    asked = Asked.of(data, freeze(data), data, renew_share=1.0)
    truth = asked.truth.astype(float)
    first, second = truth + 1.0, truth + 1.0
    second[3], first[7], second[8] = truth[3] + 5, truth[7] - 9, truth[8] - 1  # worse, better, as far off
    models = [Candidate(n, n, (), said) for n, said in (("v1", first), ("v2", second))]
    decision = judge(asked, models[1], models[0], freeze(data), GateConfig(), resamples=100)
    found = contest(decision, asked, data, (models[1], COST), (models[0], COST, data), lambda row: None, max_uses=9)
    assert [row.label for row in found.lost.rows] == ["3"]
    assert [(row.label, row.champion, row.challenger) for row in found.won.rows] == [("7", "−2.000", "8.000")]
    assert found.won.rows[0].champion_probability is None
    assert found.new_classes == ()


def test_a_first_model_and_the_same_model_have_no_sides() -> None:
    data = manifest(KNOWN)
    asked = Asked.of(data, freeze(data), None, renew_share=1.0)
    model = Candidate("v1", "x", ("a", "b"), answers(asked.truth, np.zeros(60, bool), 2))
    decision = judge(asked, model, None, freeze(data), GateConfig())
    found = contest(decision, asked, data, (model, COST), None, lambda row: None, max_uses=50)
    assert (found.lost.count, found.won.count, found.champion, found.data) == (0, 0, None, None)
    same = judge(asked, model, model, freeze(data), GateConfig())
    assert contest(same, asked, data, (model, COST), (model, COST, data), lambda row: None, max_uses=50).won.count == 0


@pytest.mark.parametrize("name", decisions.DEMOS)
def test_a_contest_is_read_back_as_it_was(name: str) -> None:
    found = decisions.DEMOS[name]().contest
    assert Contest.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_a_contest_of_another_format_or_damaged_is_refused() -> None:
    told = decisions.first_model().contest.as_json()
    with pytest.raises(FormatError, match="what was seen of a decision has format 2, this tl reads 1"):
        Contest.from_json({**told, "format": 2})
    with pytest.raises(FormatError, match="damaged record of a decision: 1 validation error"):
        Contest.from_json({**told, "lost": 3})
