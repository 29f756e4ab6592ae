"""Verdicts, what to do next, and which rows are kept: each follows from the facts, and nothing else is claimed."""

from __future__ import annotations

import dataclasses
from typing import Any

import diagnosed
import pyarrow as pa
import pytest
import rankings
import tunings
from reports import full_demo, hostile_demo, ranked, regression_demo, text_demo, tuned

from tl_core.diagnostics.results import Diagnostics
from tl_core.evaluation import Floor
from tl_core.report import ReportFacts, choose_samples, render_report
from tl_core.report.actions import MAX_ACTIONS, actions
from tl_core.report.samples import MAX_BYTES
from tl_core.report.verdicts import verdicts


def plain(**more: Any) -> ReportFacts:
    """A run in which nothing is to be done."""
    base = text_demo()
    still = tuned(curve=tunings.curve(verdict="more data would not help", text="more data would not help: 0.00"))
    data = dataclasses.replace(base.data, quarantine=())
    return dataclasses.replace(base, **({"tuning": still, "data": data} | more))


def with_gain(facts: ReportFacts, floor: str, low: float, high: float) -> ReportFacts:
    """The same run with another gain over a floor."""
    old = facts.evaluation.floors[floor]
    changed = {**facts.evaluation.floors, floor: Floor(old.value, diagnosed.around((low + high) / 2, (high - low) / 2))}
    return dataclasses.replace(facts, evaluation=dataclasses.replace(facts.evaluation, floors=changed))


def titles(facts: ReportFacts) -> list[str]:
    return [action.title for action in actions(facts)]


def words(facts: ReportFacts) -> dict[str, str]:
    return {
        said.topic: said.word for said in verdicts(facts.evaluation, facts.strategy, facts.tuning, facts.diagnostics)
    }


def test_nothing_is_advised_where_nothing_is_to_be_done() -> None:
    assert actions(plain()) == []
    assert "What to do next" not in render_report(plain())
    assert actions(plain(diagnostics=diagnosed.all_in("ok"))) == []
    assert actions(plain(diagnostics=diagnosed.all_in("unclear"))) == []


def test_what_makes_the_result_untrue_comes_first_and_five_are_enough() -> None:
    found = titles(full_demo("warn"))
    assert len(found) == MAX_ACTIONS
    assert found == [
        "Take out the copies between the splits", "Split anew so that no group is in two splits",
        "Check the 41 labels that look wrong", "Label more rows", "Add rows where device is phone",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("found", "title"),
    [
        (Diagnostics(labels=diagnosed.labels()), "Check the 41 labels that look wrong"),
        (Diagnostics(shift=diagnosed.shift()), "Find out why the data differ, and train on rows of both kinds"),
        (Diagnostics(subgroups=(diagnosed.subgroups(),)), "Add rows where device is phone"),
        (Diagnostics(calibration=diagnosed.calibration()), "Calibrate the model"),
        (Diagnostics(unusual=diagnosed.unusual()), "Have people decide on unusual rows"),
        (Diagnostics(robustness=diagnosed.robustness()), "Train with such rows as well, if they occur in use: noise"),
    ],
)
def test_each_finding_has_its_remedy(found: Diagnostics, title: str) -> None:
    assert titles(plain(diagnostics=found)) == [title]


def test_training_and_backbone_have_remedies_too() -> None:
    broken = tuned(finetune=tunings.finetune(diverged=True, stopped="its loss was no number"), curve=None)
    assert actions(plain(tuning=broken))[0].key == "tune.find_lr=true"
    learnt = tuned(gap=tunings.memorised_gap(), finetune=tunings.finetune(), curve=None)
    assert actions(plain(tuning=learnt))[0].key == "tune.strategy=probe"
    assert words(plain(tuning=learnt))["Strategy"] == "memorised"
    sold = rankings.ranking(chosen="convnext_nano.in12k_ft_in1k")
    assert actions(plain(ranking=ranked(**sold)))[-1].key == "tl backbones text --licence permissive"


def test_the_transfer_verdict_follows_the_gains() -> None:
    assert words(plain())["Transfer"] == "helps"
    hurts = with_gain(plain(), "random_init", -0.2, -0.1)
    assert words(hurts)["Transfer"] == "hurts"
    assert titles(hurts) == ["Try other backbones"]
    open_ = with_gain(plain(), "random_init", -0.05, 0.1)
    assert words(open_)["Transfer"] == "can't tell"
    assert titles(open_) == ["Get more test rows before deciding on pretraining"]
    nothing = with_gain(plain(), "majority", -0.05, 0.02)
    assert titles(nothing)[0] == "Look at the labels and the split before anything else"
    few = with_gain(plain(), "majority", -0.01, 0.6)
    assert titles(few)[0] == "Get more test rows before anything else"
    beaten = with_gain(few, "random_init", -0.2, -0.1)
    assert titles(beaten) == ["Try other backbones"]
    said = {one.topic: one for one in verdicts(beaten.evaluation, beaten.strategy, None, None)}["Transfer"]
    assert (said.word, said.text[-23:]) == ("hurts", "pretraining hurts here.")
    alone = dataclasses.replace(plain().evaluation, floors={})
    assert words(plain(evaluation=alone))["Transfer"] == "not compared"


def test_what_only_looks_alike_is_not_called_a_copy() -> None:
    found = diagnosed.leakage()
    alike = dataclasses.replace(found, exact=0, shared_groups=(), shared_rows=0)
    assert titles(plain(diagnostics=Diagnostics(leakage=alike))) == ["Look for copies between the splits"]
    assert titles(plain(diagnostics=Diagnostics(leakage=found)))[0] == "Take out the copies between the splits"


def test_the_checks_are_counted_by_what_they_come_to() -> None:
    assert "Checks" not in words(plain())
    for state, word in (("ok", "nothing found"), ("warn", "act on it"), ("unclear", "can't tell")):
        assert words(full_demo(state))["Checks"] == word
    mixed = plain(diagnostics=Diagnostics(labels=diagnosed.labels("ok"), shift=diagnosed.shift("unclear")))
    said = verdicts(mixed.evaluation, mixed.strategy, mixed.tuning, mixed.diagnostics)[-1]
    assert said.text == "2 checks looked at; none found anything to act on. Too few rows to say: shift."


def test_hostile_texts_and_other_tasks_have_advice_as_well() -> None:
    assert len(actions(hostile_demo("<b>"))) == MAX_ACTIONS
    assert actions(regression_demo())


def table(rows: list[tuple[str, str | None, float | None, bool | None]]) -> pa.Table:
    """Predictions: label, predicted, probability, correct of each row."""
    columns = dict(zip(("label", "predicted", "probability", "correct"), map(list, zip(*rows))))
    return pa.table({"row": range(len(rows)), "id": [f"r{i}" for i in range(len(rows))], **columns})


def test_errors_of_each_confusion_come_first_then_the_least_sure_right_rows() -> None:
    found = choose_samples(
        table([
            ("a", "a", 0.9, True), ("a", "b", 0.6, False), ("a", "b", 0.8, False), ("b", "a", 0.7, False),
            ("a", "a", 0.5, True), ("b", None, None, None),
        ]),
        lambda row: f"<p>{row}</p>",
    )  # fmt: skip
    assert [sample.row for sample in found] == [2, 3, 1, 4, 0]
    assert found[0].fragment == "<p>2</p>"
    assert (found[0].label, found[0].predicted, found[0].probability) == ("a", "b", 0.8)


def test_contents_are_kept_while_there_is_room_and_not_asked_for_after() -> None:
    asked: list[int] = []

    def render(row: int) -> str:
        asked.append(row)
        return "x" * (MAX_BYTES // 3)

    found = choose_samples(table([("a", "b", 0.5, False)] * 50), render)
    assert [sample.fragment is not None for sample in found] == [True] * 3 + [False] * 47
    assert len(asked) < 10


def test_rows_of_a_regression_come_by_their_error() -> None:
    rows: Any = [("1.0", 1.5, None, None), ("2.0", 9.0, None, None), ("3.0", 3.1, None, None)]
    found = choose_samples(table(rows), lambda row: None)
    assert [(sample.row, sample.predicted) for sample in found] == [(1, "9.000"), (0, "1.500"), (2, "3.100")]
