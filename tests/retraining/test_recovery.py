"""What the next retrain makes of one that ended too early, with its model registered: carried out, told, never lost."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import decisions
import pytest
from tl_flows.model_registry import ModelRegistry
from tl_flows.params import edit_params
from tl_flows.prefect_env import LOGGER
from tl_flows.retraining.attempt import Attempt
from tl_flows.retraining.decided import FILE, Decided
from tl_flows.retraining.night import OUTCOME, Night
from tl_flows.retraining.outcome import Outcome, as_markdown
from tl_flows.retraining.publishing import REPORTS
from tl_flows.retraining.recovery import promote, settle
from tl_flows.retraining.sources import Asked
from tl_flows.retraining.test_sets import DECISION
from versions import commit_run, facts_of, make_project, outputs, registered

from tl_core.errors import UserError
from tl_core.gate import Decision, SetUse, Stood
from tl_core.report.contest import Contest

CHALLENGER = "the new model"


def decision(promote: bool, champion: str | None = "v1") -> Decision:
    return Decision(
        promote=promote,
        sentence="Promoted: better." if promote else "Refused: not better.",
        rules=(),
        further_rows=None,
        metric="accuracy",
        confidence=0.95,
        challenger=Stood(CHALLENGER, "c" * 64, None),
        champion=Stood(champion, "d" * 64, None) if champion else None,
        test_set=SetUse(1, "hash", 100, 100, 0, 0, 0, 0, 0, 1),
        warnings=(),
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose version v1 serves, and whose last retrain was killed before it registered anything."""
    root = make_project(tmp_path / "shop")
    edit_params(root / "params.yaml", {})
    registered(root, 1).promote("v1", expected_champion=None, why="first")
    Attempt.begin("base", 1_000.0).keep(root)
    return root


def decide(project: Path, decided: Decision, why: str | None = None) -> str:
    """Register what the killed retrain made; the version's name."""
    (project / DECISION).parent.mkdir(exist_ok=True)
    (project / DECISION).write_text(json.dumps(decided.as_json()))
    last = Attempt.last(project)
    assert last is not None
    count = len(ModelRegistry.open(project).state().versions)
    commit = commit_run(project, outputs(b"model of a night %d" % count))
    facts = facts_of(project, commit, why=last.why if why is None else why)
    return ModelRegistry.open(project).register(commit, facts).name


def champion(project: Path) -> str:
    found = ModelRegistry.open(project).state().champion
    assert found is not None
    return found.name


def next_night(project: Path) -> Night:
    return Night(project, Asked())


def test_a_promotion_that_was_cut_off_is_made_good(project: Path) -> None:
    assert decide(project, decision(True)) == "v2"
    made_good = next_night(project).make_good()
    assert made_good is not None
    assert (made_good.state, made_good.version, made_good.champion) == ("promoted", "v2", "v2")
    assert "did not come to its end" in made_good.reason
    assert champion(project) == "v2"


def test_one_that_was_promoted_or_refused_before_the_kill_is_told_and_nothing_else(project: Path) -> None:
    decide(project, decision(True))
    registry = ModelRegistry.open(project)
    registry.promote("v2", expected_champion="v1", why="by the night")
    registry.rollback("v1", expected_champion="v2", why="by hand")
    before = registry.state()
    told = next_night(project).make_good()
    assert told is not None
    assert (told.state, told.version, told.champion) == ("promoted", "v2", "v1")
    decide(project, decision(False))
    told = next_night(project).make_good()
    assert told is not None
    assert (told.state, told.version, told.champion) == ("refused", "v3", "v1")
    assert registry.state().history[: len(before.history)] == before.history
    assert champion(project) == "v1"


def test_an_outcome_tells_of_both_models(project: Path) -> None:
    decide(project, decision(True))
    night = next_night(project)
    night.make_good()
    ended = night.end(Outcome("failed", "the disk is full"))
    assert (ended.state, ended.reason, ended.champion) == ("failed", "the disk is full", "v2")
    assert ended.made_good.startswith("v2: Promoted: better.")
    assert Outcome.load(project / OUTCOME) == ended
    assert "Before that: v2: Promoted: better." in as_markdown(ended)
    assert next_night(project).make_good() is None  # told once


def test_a_promotion_that_was_overtaken_by_hand_is_said_and_the_night_goes_on(project: Path) -> None:
    decide(project, decision(True))
    registered(project, 1).promote("v3", expected_champion="v1", why="by hand")
    told = next_night(project).make_good()
    assert told is not None
    assert (told.state, told.version, told.champion) == ("refused", "v2", "v3")
    assert "Not promoted all the same: v3 is the champion by now" in told.reason
    assert champion(project) == "v3"


def test_a_registry_that_can_not_be_written_leaves_it_to_the_next_night(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide(project, decision(True))
    promote = ModelRegistry.promote

    def full(*_: Any, **__: Any) -> Any:
        raise UserError("the model registry can't be written")

    monkeypatch.setattr(ModelRegistry, "promote", full)
    night = next_night(project)
    with pytest.raises(UserError, match="can't be written"):
        night.make_good()
    night.end(Outcome("failed", "the model registry can't be written"))
    monkeypatch.setattr(ModelRegistry, "promote", promote)
    assert next_night(project).make_good() is not None
    assert champion(project) == "v2"


def test_a_version_registered_by_hand_in_between_hides_nothing(project: Path) -> None:
    decide(project, decision(True))
    registered(project, 1)
    made_good = next_night(project).make_good()
    assert made_good is not None
    assert (made_good.version, champion(project)) == ("v2", "v2")


def test_a_second_kill_hides_neither_the_first_ones_model_nor_its_outcome(project: Path) -> None:
    decide(project, decision(True))
    killed = next_night(project)
    assert killed.killed is not None
    Attempt.begin("base", 2_000.0, killed.killed.untold).keep(project)  # killed before it looked, or before it ended
    third = next_night(project)
    made_good = third.make_good()
    assert made_good is not None
    assert (made_good.state, made_good.version, champion(project)) == ("promoted", "v2", "v2")
    assert next_night(project).make_good() == made_good  # again, where this one is killed too


def test_a_record_of_a_former_tl_has_its_own_origin_untold(project: Path) -> None:
    file = project / ".tl" / "retrain" / "attempt.json"
    facts = json.loads(file.read_text())
    del facts["untold"]
    file.write_text(json.dumps(facts))
    last = Attempt.last(project)
    assert last is not None
    assert last.untold == (last.why,)


def test_a_version_of_another_origin_is_left_alone(project: Path) -> None:
    decide(project, decision(True), why="somebody's own script")
    assert next_night(project).make_good() is None
    assert champion(project) == "v1"
    assert settle(ModelRegistry.open(project), []) is None


@pytest.mark.parametrize("state", ["refused", "promoted", "nothing new"])
def test_a_retrain_that_came_to_its_end_is_not_made_good(project: Path, state: str) -> None:
    decide(project, decision(True))
    last = Attempt.last(project)
    assert last is not None
    last.but(state=state, untold=()).keep(project)
    assert next_night(project).make_good() is None
    assert champion(project) == "v1"


def test_what_a_failure_cut_off_is_made_good_too(project: Path) -> None:
    night = next_night(project)
    assert night.make_good() is None
    night.attempt = Attempt.begin("base", 3_000.0, night.untold).keep(project)
    decide(project, decision(True))
    night.end(Outcome("failed", "the disk is full"))
    made_good = next_night(project).make_good()
    assert made_good is not None
    assert (made_good.state, made_good.version, champion(project)) == ("promoted", "v2", "v2")


def test_origins_without_a_version_are_not_kept_for_ever(project: Path) -> None:
    for started in (3_000.0, 4_000.0, 5_000.0):
        night = next_night(project)
        night.make_good()
        night.attempt = Attempt.begin("base", started, night.untold).keep(project)
        night.end(Outcome("failed", "the remote is away"))
    last = Attempt.last(project)
    assert last is not None
    assert last.untold == (last.why,)


def test_a_promotion_raises_where_nobody_came_between(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, registry = decide(project, decision(True)), ModelRegistry.open(project)
    assert "v1 is the champion by now" in str(promote(registry, name, None, "late"))
    monkeypatch.setattr(ModelRegistry, "_create", lambda *_: (_ for _ in ()).throw(UserError("can't be written")))
    with pytest.raises(UserError, match="can't be written"):
        promote(registry, name, "v1", "better")


def kept(project: Path) -> Contest:
    """What the killed retrain had seen of a decision to promote, kept as it keeps it."""
    contest = decisions.DEMOS["promoted"]().contest
    last = Attempt.last(project)
    assert contest.decision.promote
    assert last is not None
    Decided(last.why, contest, "files: 5 added", 2).keep(project)
    return contest


def test_the_page_that_a_kill_cut_off_is_published(project: Path) -> None:
    contest = kept(project)
    registered(project, 1)
    ModelRegistry.open(project).promote("v2", expected_champion="v1", why="by hand")
    assert decide(project, contest.decision) == "v3"
    made_good = next_night(project).make_good()
    assert made_good is not None
    assert (made_good.data, made_good.quarantined) == ("files: 5 added", 2)
    folder = project / REPORTS / "v3"
    assert made_good.folder == str(folder)
    assert json.loads((folder / "decision.json").read_text()) == contest.decision.as_json()
    page = (folder / "decision.html").read_text()
    assert "Promoted: v3 takes the place of v2" in page
    assert "files: 5 added" in page
    assert page.count("<img") >= 20  # the rows that changed sides
    again = next_night(project)  # this one was killed before it told it
    (folder / "decision.html").write_text("seen")
    assert again.make_good() == made_good
    assert (folder / "decision.html").read_text() == "seen"
    again.end(Outcome("nothing new", "all told"))
    assert not (project / FILE).exists()


def test_the_page_of_an_overtaken_promotion_says_so(project: Path) -> None:
    contest = kept(project)
    registered(project, 1)  # v2, which it was decided against, serves no more
    decide(project, contest.decision)
    assert next_night(project).make_good() is not None
    page = (project / REPORTS / "v3" / "decision.html").read_text()
    assert "Not promoted: v3 was better, but came too late" in page
    assert "Not promoted all the same: v1 is the champion" in page
    assert "did not come to its end" not in page


@pytest.mark.parametrize("spoilt", ["", "{}", '{"format": 1, "why": 3}', "[1]", "of another"])
def test_what_was_not_kept_whole_makes_no_page_and_stops_nothing(
    project: Path, caplog: pytest.LogCaptureFixture, spoilt: str
) -> None:
    kept(project)
    decide(project, decision(True))
    file = project / FILE
    if spoilt == "of another":
        file.write_text(json.dumps({**json.loads(file.read_text()), "why": "another"}))
    else:
        file.write_text(spoilt)
    with caplog.at_level(logging.WARNING, "tl"):
        made_good = next_night(project).make_good()
    assert made_good is not None
    assert (made_good.state, champion(project)) == ("promoted", "v2")
    assert [path.name for path in (project / REPORTS / "v2").iterdir()] == ["decision.json"]
    assert "the page of the decision on v2 can't be made: what its retrain saw was not kept whole" in caplog.messages


def test_a_decision_that_can_not_be_kept_is_logged_and_changes_no_night(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (project / FILE).mkdir(parents=True)
    decided = Decided("retrain 1", decisions.demo().contest)
    with caplog.at_level(logging.WARNING, LOGGER):
        assert decided.keep(project) is decided
    assert caplog.messages == ["the decision can't be kept for the page that a kill may leave unmade"]
    assert caplog.records[0].exc_info is not None
    assert Decided.load(project, "retrain 1") is None


def test_a_failed_night_keeps_what_the_next_one_publishes(project: Path) -> None:
    kept(project)
    next_night(project).end(Outcome("failed", "the disk is full"))
    assert (project / FILE).is_file()
