"""The search: what it finds, that a kill does not change it, and what it says of itself."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs import job_of, write_maps

from tl_core.errors import UserError
from tl_core.training import search as module
from tl_core.training.job import Fitted, Job
from tl_core.training.search import search
from tl_core.training.search_probe import ProbeTrials


def probe_job(tmp_path: Path, trials: int, state: str = "state", **tune: Any) -> Job:
    found = {"trials": trials, **tune.pop("search", {})}
    job = job_of(write_maps(tmp_path / "maps", 40, 24), tmp_path, strategy="probe", search=found, **tune)
    return job.replace(state=tmp_path / state)


class Killed(BaseException):
    """What a test raises where a process would be gone."""


def fake(peak: float = 3e-3, epochs: int = 4, dies_at: int = -1) -> Callable[[Job], Fitted]:
    """A fit whose metric peaks at a learning rate and rises by epoch; counts its calls in `calls`."""
    calls: list[Job] = []

    def fit(job: Job) -> Fitted:
        if len(calls) == dies_at:
            raise Killed
        calls.append(job)
        tune = job.config.tune
        level = 1 - 0.1 * abs(float(np.log10(tune.lr / peak))) - 0.01 * tune.label_smoothing
        history: list[dict[str, Any]] = []
        for epoch in range(1, epochs + 1):
            history.append({"epoch": epoch, "val": level * epoch / epochs, "val_loss": 1 - level})
            if job.judged is not None:
                job.judged(history)
        head = torch.nn.Identity()
        return Fitted(head, None, (), {"finetune": {"history": history}}, np.zeros(0), np.zeros(0), np.zeros(0))  # type: ignore[arg-type]

    fit.calls = calls  # type: ignore[attr-defined]
    return fit


def finetune_job(tmp_path: Path, trials: int, state: str = "state") -> Job:
    job = job_of(write_maps(tmp_path / "maps"), tmp_path, search={"trials": trials})
    return job.replace(state=tmp_path / state)


def test_a_probe_search_is_no_worse_than_the_config_and_says_what_it_did(tmp_path: Path) -> None:
    job = probe_job(tmp_path, 30)
    found = search(job)
    facts = found.facts
    assert facts["trials"] == 30
    assert facts["pruned"] == 0
    assert facts["watch"] == "accuracy"
    assert len(facts["values"]) == 30
    assert facts["values"] == sorted(facts["values"])
    assert facts["best"]["value"] == pytest.approx(facts["values"][-1])
    middle = sorted(job.config.tune.strengths)[len(job.config.tune.strengths) // 2]
    assert facts["best"]["value"] >= ProbeTrials(job)({"strength": middle, "balance": False})[0]
    assert set(facts["best"]["settings"]) == {"strength", "balance"}
    assert found.settings["strengths"] == (facts["best"]["settings"]["strength"],)
    assert found.settings["balance"] == facts["best"]["settings"]["balance"]
    assert sum(facts["importance"].values()) == pytest.approx(1, abs=1e-3)


def test_a_trial_of_a_probe_depends_on_its_settings_alone(tmp_path: Path) -> None:
    job = probe_job(tmp_path, 1)
    trials = ProbeTrials(job)
    first = trials({"strength": 7.0, "balance": True})
    for strength in (0.1, 50.0, 900.0):
        trials({"strength": strength, "balance": strength > 1})
    assert trials({"strength": 7.0, "balance": True}) == first == ProbeTrials(job)({"strength": 7.0, "balance": True})


def test_a_killed_search_ends_as_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = search(probe_job(tmp_path, 25, "one"))
    monkeypatch.setattr(module, "KEPT_EVERY", 4)
    whole = ProbeTrials.__call__
    calls = 0

    def dying(self: ProbeTrials, settings: dict[str, Any]) -> tuple[float, float]:
        nonlocal calls
        calls += 1
        if calls in (7, 19):
            raise Killed
        return whole(self, settings)

    monkeypatch.setattr(ProbeTrials, "__call__", dying)
    monkeypatch.setattr(
        module._Search, "_keep", lambda self, kept, keep=module._Search._keep: _unless_dying(self, kept, keep)
    )
    for _ in range(2):
        with pytest.raises(Killed):
            search(probe_job(tmp_path, 25, "other"))
    assert search(probe_job(tmp_path, 25, "other")) == undisturbed
    assert calls > 25 > 19, "what was not kept was tried again"


def _unless_dying(self: Any, kept: int, keep: Callable[[Any, int], int]) -> int:
    """A process that is gone copies nothing any more."""
    return kept if isinstance(sys.exc_info()[1], Killed) else keep(self, kept)


def test_fine_tuning_finds_the_rate_prunes_and_starts_from_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fake()
    monkeypatch.setattr(module, "fit", fit)
    job = finetune_job(tmp_path, 30)
    found = search(job)
    first = fit.calls[0].config.tune  # type: ignore[attr-defined]
    assert (first.lr, first.head_lr, first.weight_decay) == (2e-4, 1e-3, 0.01)
    assert first.train_from == 3 or first.train_from == "all"
    assert 3e-4 < found.settings["lr"] < 3e-2
    assert set(found.settings) >= {"lr", "head_lr", "train_from", "layer_decay", "weight_decay", "label_smoothing"}
    assert found.facts["pruned"] > 3
    assert len(found.facts["values"]) == 30 - found.facts["pruned"]
    assert not list((tmp_path / "state").glob("trial-*")), "the fits' own states are gone"


def test_killed_fine_tuning_ends_as_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fit", fake())
    undisturbed = search(finetune_job(tmp_path, 12, "one"))
    for dies_at in (5, 3):
        monkeypatch.setattr(module, "fit", fake(dies_at=dies_at))
        with pytest.raises(Killed):
            search(finetune_job(tmp_path, 12, "other"))
    fit = fake()
    monkeypatch.setattr(module, "fit", fit)
    assert search(finetune_job(tmp_path, 12, "other")) == undisturbed
    assert len(fit.calls) == 4, "only what was left to do"  # type: ignore[attr-defined]


def test_a_longer_search_goes_on_from_a_shorter_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = fake()
    monkeypatch.setattr(module, "fit", fit)
    search(finetune_job(tmp_path, 4))
    assert search(finetune_job(tmp_path, 7)).facts["trials"] == 7
    assert len(fit.calls) == 7  # type: ignore[attr-defined]


def test_a_trial_that_diverges_is_pruned_and_all_of_them_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fake()

    def sometimes(job: Job) -> Fitted:
        if job.config.tune.lr > 1e-3:
            raise UserError("the training diverged")
        return fit(job)

    monkeypatch.setattr(module, "fit", sometimes)
    found = search(finetune_job(tmp_path, 10))
    assert found.facts["pruned"] >= 1
    assert found.settings["lr"] <= 1e-3

    def never(job: Job) -> Fitted:
        raise UserError("the training diverged")

    monkeypatch.setattr(module, "fit", never)
    with pytest.raises(UserError, match="the training diverged"):
        search(finetune_job(tmp_path, 3, "other"))


def test_the_storage_of_the_config_is_used(tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path / 'mine.db'}"
    found = search(probe_job(tmp_path, 5, search={"storage": url}))
    names = optuna.get_all_study_names(url)
    assert len(names) == 1
    assert names[0].startswith("tl-")
    study = optuna.load_study(study_name=names[0], storage=url)
    assert len(study.trials) == 5
    assert study.best_value == found.facts["best"]["value"]


def test_user_errors_name_the_key_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = finetune_job(tmp_path, 3).tuned(strategy="contrastive")
    with pytest.raises(
        UserError, match=r"'tune.search.trials' can't be 3 with tune.strategy=contrastive: .*; set it to 0"
    ):
        search(pairs)
    with pytest.raises(UserError, match=r"'tune.search.storage' can't be 'nowhere://x'.*give an Optuna storage URL"):
        search(probe_job(tmp_path, 2, search={"storage": "nowhere://x"}))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"needs Optuna: pip install 'tl-core\[search\]', or set it to 0"):
        search(probe_job(tmp_path, 2))


def test_optuna_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    level = logging.getLogger("optuna").level
    search(probe_job(tmp_path, 3))
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("optuna").level == level
