"""auto: what is tried within the budget, on which rows, and what is chosen by it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from jobs import job_of, write_maps
from torch import nn

from tl_core.config import TuneConfig
from tl_core.errors import UserError
from tl_core.selection.outcomes import Outcomes
from tl_core.selection.standing import Standing, standings
from tl_core.training import trial as module
from tl_core.training import trial_plan
from tl_core.training.job import Fitted, Job
from tl_core.training.trial import choose, decide, log_loss
from tl_core.training.trial_plan import Price, designs, plan_trial, price_of

SPEED = 1e12  # FLOP/s: so quick that only opening counts
RIGHT = {"probe": 0.7, "lp_ft": 0.9, "finetune": 0.8}


def auto(tmp_path: Path, train: int = 80, val: int = 40, **tune: Any) -> Job:
    settings = {"strategy": "auto", "minutes": 10.0, **tune}
    return job_of(write_maps(tmp_path / "maps", train, val), tmp_path, **settings)


def fits(right: Mapping[str, float], calls: list[Job]) -> Callable[[Job], Fitted]:
    """A fit of each strategy that is right on a share of all rows; those that are hard are hard for all."""

    def fit(job: Job) -> Fitted:
        calls.append(job)
        share = right[job.config.tune.strategy]
        if share < 0:
            raise UserError(f"{job.config.tune.strategy} diverged")
        (job.state / "weights").mkdir(parents=True)
        return Fitted(nn.Identity(), None, (), {}, said(job, job.val, share), job.val, np.zeros(0))  # type: ignore[arg-type]

    return fit


def said(job: Job, rows: np.ndarray, share: float) -> np.ndarray:
    y = job.manifest.target_array(rows)
    luck = np.random.default_rng(0).random(len(job.manifest))[rows]
    answer = np.where(luck < share, y, 1 - y)
    return np.eye(2, dtype=np.float32)[answer] * 0.8 + 0.1


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    found: list[Job] = []
    faked(monkeypatch, RIGHT, found)
    return found


def faked(monkeypatch: pytest.MonkeyPatch, right: Mapping[str, float], calls: list[Job]) -> None:
    monkeypatch.setattr(module, "fit", fits(right, calls))
    monkeypatch.setattr(
        module, "_predicted", lambda job, fitted, rows: said(job, rows, right[job.config.tune.strategy])
    )


def by_name(decision: module.Decision) -> dict[str, dict[str, Any]]:
    return {one["strategy"]: one for one in decision.facts["candidates"]}


def test_the_best_on_held_out_rows_is_taken(tmp_path: Path, calls: list[Job]) -> None:
    decision = decide(auto(tmp_path, 200, 80), SPEED)
    facts = decision.facts
    assert decision.chosen == facts["chosen"] == "lp_ft"
    assert facts["rows"] == 280
    assert facts["folds"] == 3
    found = by_name(decision)
    assert list(found) == ["probe", "lp_ft", "finetune"]
    assert {name: one["status"] for name, one in found.items()} == dict.fromkeys(RIGHT, "tried")
    luck = np.random.default_rng(0).random(280)
    for name, share in RIGHT.items():
        assert found[name]["value"] == pytest.approx((luck < share).mean(), abs=1e-6)
    assert found["lp_ft"]["gap"] == 0
    assert found["probe"]["gap_low"] > 0
    assert found["probe"]["gflops"] == 0
    assert found["lp_ft"]["gflops"] == found["finetune"]["gflops"] > 0
    assert sum(one["p_best"] for one in found.values()) == pytest.approx(1, abs=1e-5)
    assert facts["why"].startswith("fine-tuning pays: lp_ft 0.8")
    assert json.loads(json.dumps(facts)) == facts


def test_the_probe_stays_where_fine_tuning_gains_nothing_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faked(monkeypatch, {"probe": 0.8, "lp_ft": 0.8, "finetune": 0.78}, [])
    decision = decide(auto(tmp_path), SPEED)
    assert decision.chosen == "probe"
    assert decision.facts["why"].startswith("fine-tuning does not clearly pay")


def test_what_is_close_is_decided_by_how_sure_each_was() -> None:
    truth = np.random.default_rng(1).random(60)
    right = {"probe": truth < 0.7, "lp_ft": truth < 0.72, "finetune": np.roll(truth, 1) < 0.69}
    found = standings(
        {n: [Outcomes("multiclass", r[:, None].astype(float))] for n, r in right.items()}, confidence=0.9, seed=0
    )
    assert choose(found, {"probe": 0.6, "lp_ft": 0.7, "finetune": 0.65}) == "probe"
    assert choose(found, {"probe": 0.7, "lp_ft": 0.7, "finetune": 0.65}) == "finetune"
    assert choose(found, {"probe": 0.7, "lp_ft": 0.7, "finetune": 0.71}) == "probe", "as sure as the other, and cheaper"
    right["lp_ft"] = truth < 0.95  # clearly better, whatever it is sure of
    found = standings(
        {n: [Outcomes("multiclass", r[:, None].astype(float))] for n, r in right.items()}, confidence=0.9, seed=0
    )
    assert choose(found, {"probe": 0.6, "lp_ft": 0.9, "finetune": 0.65}) == "lp_ft"


def test_log_loss_bounds_what_a_single_row_counts() -> None:
    assert log_loss(np.array([1.0, 0.5])) == pytest.approx(math.log(2) / 2)
    assert log_loss(np.array([0.0])) == pytest.approx(math.log(1000))
    assert log_loss(None) is None


def test_numbers_have_no_log_loss_and_fine_tuning_must_be_more_likely_better_than_not() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=50)
    noise = rng.normal(size=50)

    def found(gain: float) -> list[Standing]:
        said = {"probe": truth + noise, "lp_ft": truth + noise / (1 + gain) + 0.3 * rng.normal(size=50) * (gain < 1)}
        history = {name: [Outcomes.of("regression", values, truth)] for name, values in said.items()}
        return standings(history, confidence=0.9, seed=0)

    none: dict[str, float | None] = {"probe": None, "lp_ft": None}
    assert choose(found(2.0), none) == "lp_ft"
    assert choose(found(0.0), none) == "probe"


def test_a_probe_without_mistakes_leaves_nothing_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Job] = []
    faked(monkeypatch, {"probe": 1.0, "lp_ft": 1.0, "finetune": 1.0}, calls)
    decision = decide(auto(tmp_path), SPEED)
    assert decision.chosen == "probe"
    assert {job.config.tune.strategy for job in calls} == {"probe"}
    assert decision.facts["why"] == "the probe made no mistake on 120 held-out rows"
    assert by_name(decision)["lp_ft"]["reason"] == "the probe made no mistake on the held-out rows"


def test_rows_are_held_out_in_turn_and_split_as_the_job_is(tmp_path: Path, calls: list[Job]) -> None:
    job = auto(tmp_path, 90, 30)
    design = next(designs(job))
    assert len(design.fits) == 6, "two deals of so few rows into three"
    everyone = np.concatenate([job.train, job.val])
    for part in design.fits:
        together = np.concatenate([part.train, part.val, part.held])
        assert sorted(together) == sorted(everyone)
        assert len(part.val) / (len(part.train) + len(part.val)) == pytest.approx(0.25, abs=0.03)
        assert abs(job.manifest.target_array(part.held).mean() - 0.5) < 0.05
    held = np.concatenate([part.held for part in design.fits])
    assert np.array_equal(np.bincount(held), np.full(120, 2))
    decide(job, SPEED)
    assert len(calls) == 18


def test_groups_are_held_out_whole(tmp_path: Path) -> None:
    job = auto(tmp_path, 60, 20)
    table = job.manifest.table
    groups = pa.array([f"g{i // 8}" for i in range(len(table))], table.schema.field("group").type)
    table = table.set_column(table.schema.get_field_index("group"), "group", groups)
    job = job.replace(manifest=dataclasses.replace(job.manifest, table=table))
    for part in next(designs(job)).fits:
        owners = [set(job.manifest.groups(rows) or ()) for rows in (part.train, part.val, part.held)]
        assert not owners[0] & owners[2]
        assert not owners[1] & owners[2]
        assert not owners[0] & owners[1]


def test_many_validation_rows_judge_by_themselves_and_the_fit_is_kept(tmp_path: Path, calls: list[Job]) -> None:
    job = auto(tmp_path, 60, 300)
    decision = decide(job, SPEED)
    assert decision.facts["folds"] == 1
    assert decision.facts["rows"] == 300
    assert len(calls) == 3
    assert np.array_equal(calls[0].train, job.train)
    assert np.array_equal(calls[0].val, job.val)
    assert decision.fitted is not None, "the step need not fit lp_ft once more"


def test_a_smaller_budget_buys_less(tmp_path: Path) -> None:
    job = auto(tmp_path, 220, 60)
    price = price_of(job, job.spec.build(), job.tuned(strategy="lp_ft").config.tune)
    assert price is not None
    works = [price.of(way, job.config.tune, SPEED) for way in designs(job)]
    assert max(works) == works[0]
    both, least = 2 * works[0] / (60 * SPEED), min(works) / (60 * SPEED)
    plans = []
    for minutes in (1.01 * both, 0.8 * both, 1.5 * least, 0.0):
        plan = plan_trial(job.tuned(minutes=minutes), SPEED)
        plans.append((len(plan.design.fits), plan.design.thinned, sorted(plan.skipped)))
    assert plans[0] == (3, 1, [])
    assert plans[1][0] < 3 or plans[1][1] > 1
    assert plans[2][2] == ["finetune"], "lp_ft alone still fits"
    assert plans[3][2] == ["finetune", "lp_ft"]


def test_a_reason_names_the_minutes_from_which_on_a_strategy_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Price, "of", lambda self, design, tune, speed: 1.8 * 60 * speed)
    job = auto(tmp_path)

    def skipped(minutes: float) -> Mapping[str, str]:
        return plan_trial(job.tuned(minutes=minutes), SPEED).skipped

    assert not skipped(3.6)
    both = "too slow: trials of lp_ft and of it take about 3.6 min at the least on this machine; tune.minutes is "
    assert skipped(3.0) == {"finetune": f"{both}3: raise it, or name the strategy to have it fitted"}
    assert {name: reason.partition(": raise")[0] for name, reason in skipped(1.0).items()} == {
        "lp_ft": "too slow: a trial of it takes about 1.8 min at the least on this machine; tune.minutes is 1",
        "finetune": f"{both}1",
    }
    assert "take about 3.6 min" in skipped(3.59)["finetune"], "never less than there would have to be"


def test_what_is_too_slow_is_skipped_with_its_reason(tmp_path: Path, calls: list[Job]) -> None:
    decision = decide(auto(tmp_path, minutes=0), SPEED)
    assert decision.chosen == "probe"
    found = by_name(decision)
    assert found["lp_ft"]["status"] == found["finetune"]["status"] == "skipped"
    assert found["lp_ft"]["reason"].startswith("too slow: a trial of it takes about")
    assert "tune.minutes is 0: raise it" in found["lp_ft"]["reason"]
    assert found["lp_ft"]["value"] is found["lp_ft"]["gflops"] is None
    assert decision.facts["why"] == "fine-tuning could not be tried"
    assert {job.config.tune.strategy for job in calls} == {"probe"}


def test_the_frozen_part_is_counted_once_where_it_is_stored(tmp_path: Path) -> None:
    part = next(designs(auto(tmp_path)))
    tune = TuneConfig(epochs=10)
    raw, stored = (Price(1e9, 1e8, stored=stored, views=1).of(part, tune, 0.0) for stored in (False, True))
    assert stored < raw / 4


def test_a_killed_trial_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = decide_with(tmp_path, monkeypatch, "one", dies_at=None)
    with pytest.raises(KeyboardInterrupt):
        decide_with(tmp_path, monkeypatch, "other", dies_at=8)
    calls: list[Job] = []
    faked(monkeypatch, RIGHT, calls)
    again = decide(auto(tmp_path).replace(state=tmp_path / "other"), SPEED)
    assert again.facts == undisturbed.facts
    assert len(calls) == 18 - 8
    assert not list((tmp_path / "other").rglob("weights")), "what a fit would have gone on with is gone"


def decide_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, dies_at: int | None) -> module.Decision:
    calls: list[Job] = []
    whole = fits(RIGHT, calls)
    faked(monkeypatch, RIGHT, calls)

    def fit(job: Job) -> Fitted:
        if len(calls) == dies_at:
            raise KeyboardInterrupt
        return whole(job)

    monkeypatch.setattr(module, "fit", fit)
    return decide(auto(tmp_path).replace(state=tmp_path / state), SPEED)


def test_other_settings_are_other_trials(tmp_path: Path, calls: list[Job]) -> None:
    decide(auto(tmp_path), SPEED)
    before = len(calls)
    decide(auto(tmp_path, save_minutes=9.0, minutes=20.0), SPEED)
    assert len(calls) == before
    decide(auto(tmp_path, lr=3e-4), SPEED)
    assert len(calls) > before
    before = len(calls)
    decide(auto(tmp_path, calibrate=False), SPEED)  # which decides how sure they are
    assert len(calls) > before


def test_what_diverges_is_skipped_and_a_probe_that_can_not_be_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faked(monkeypatch, {"probe": 0.7, "lp_ft": -1.0, "finetune": 0.9}, [])
    decision = decide(auto(tmp_path), SPEED)
    assert decision.chosen == "finetune"
    assert by_name(decision)["lp_ft"]["reason"] == "lp_ft diverged"
    faked(monkeypatch, {"probe": -1.0, "lp_ft": -1.0, "finetune": 0.9}, [])
    decision = decide(auto(tmp_path).replace(state=tmp_path / "other"), SPEED)
    assert decision.chosen == "finetune"
    assert decision.facts["why"].startswith("the probe can't be fitted")
    faked(monkeypatch, {"probe": -1.0, "lp_ft": -1.0, "finetune": -1.0}, [])
    with pytest.raises(UserError, match="probe diverged"):
        decide(auto(tmp_path).replace(state=tmp_path / "third"), SPEED)


def test_nothing_is_tried_with_settings_that_can_not_be(tmp_path: Path, calls: list[Job]) -> None:
    with pytest.raises(UserError, match=r"'tune.train_from' can't be 9"):
        decide(auto(tmp_path, train_from=9), SPEED)
    assert not calls


def test_a_real_decision_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_plan, "FOLDS", 2)
    monkeypatch.setattr(trial_plan, "REPEATS", 1)
    job = auto(tmp_path, 20, 10, epochs=1)
    first = decide(job, SPEED)
    second = decide(job.replace(state=tmp_path / "other"), SPEED)
    assert first.facts == second.facts
    for name, answer in first.said.items():
        assert np.array_equal(answer, second.said[name])
