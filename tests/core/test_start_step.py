"""`tune.start` in the step: the model is taken where that is honest, and where it is not the reason is told."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import write_waves
from tl_core.bundle import SEEN, read_facts, seen_in
from tl_core.config import validate
from tl_core.errors import UserError
from tl_core.gate import Asked, freeze
from tl_core.manifest import Manifest
from tl_core.registry import Registry
from tl_core.report import Tuning
from tl_core.steps import extract, select, tune, version
from tl_core.training import Fitted, Job, fit
from tl_core.training.seen import Seen
from tl_core.workspace import Workspace

Row = tuple[str, str, str]  # file, label, split
QUICK = {"strategy": "finetune", "epochs": 1, "curve": False, "minutes": 0}


def rows(*, per: int = 24, names: Sequence[str] = ("slow", "fast")) -> list[Row]:
    """Rows of class folders, the same for the same file: one in four tests, one in four validates."""
    splits = ("train", "val", "test", "train")
    return [(f"{name}/{i:03d}.npy", name, splits[i % 4]) for name in names for i in range(per)]


@dataclass
class Project:
    """Series and their table, and a workspace whose models lie in `bundles`."""

    data: Path
    registry: Registry
    table: Sequence[Row] = ()

    @property
    def workspace(self) -> Workspace:
        top = self.data.parent
        return Workspace(root=top / "out", store=top / "store", cache=top / "cache")

    def tuned(self, table: Sequence[Row], start: str | None = None, **settings: Any) -> dict[str, Any]:
        """tune.json after the steps up to `tune`."""
        config = validate({"data": {"path": str(self.data)}, "tune": {**QUICK, "start": start, **settings}})
        if self.table != table:
            self.table = table
            with (self.data / "metadata.csv").open("w", newline="") as stream:
                csv.writer(stream).writerows([("file", "label", "split"), *table])
            for step in (version, select, extract):
                step(config, self.registry, self.workspace)
        self.results = tune(config, self.registry, self.workspace)
        found: dict[str, Any] = json.loads(self.workspace.tuning.read_text())
        return found

    def keep(self, letter: str) -> str:
        """Put the model where those of other commits lie; its name there."""
        digest = letter * 32
        shutil.copytree(self.workspace.model, self.workspace.models / digest / "model")
        return digest

    def seen(self) -> Seen:
        return Seen.load(self.workspace.model / SEEN)


@pytest.fixture
def project(timeseries: Registry, tmp_path: Path) -> Project:
    return Project(write_waves(tmp_path / "waves", per_class=32), timeseries)


def test_a_chain_of_models_and_its_memory(project: Project) -> None:
    assert project.tuned(rows())["start"] is None
    first, was = project.keep("a"), project.seen()
    assert (len(was.learned), len(was.judged)) == (24, 12)

    # a new class, a gone one; four rows that were trained on validate now
    table = [(f, n, "val" if i % 24 in (0, 3) else s) for i, (f, n, s) in enumerate(rows(names=("fast", "noise")))]
    found = project.tuned(table, first)
    start = found["start"]
    assert start["used"]
    assert start["moved"] == 2  # of the class that the first model knew
    assert "training went on from the model aaaaaaaaaaaa: filters, pool, and its head for 1 classes" in start["text"]
    assert "(new: noise; gone: slow); 2 validation rows that it had learned from were trained on" in start["text"]
    assert project.results["notes"] == [start["text"]]
    assert Tuning.load(project.workspace.tuning).start is not None
    facts = read_facts(project.workspace.model)
    assert facts["training"]["started_from"] == first
    assert facts["training"]["validation_rows"] == 14
    assert f"Started from: {first}" in (project.workspace.model / "README.md").read_text()
    second, both = project.keep("b"), project.seen()
    assert set(was.learned) <= set(both.learned)

    champion = Manifest.load(project.workspace.manifest, project.workspace.root)

    # what only the first one has seen is a test row now
    old = {file for file, _, split in rows(names=("slow",), per=12) if split == "train"}
    table = [(f, n, "test" if f in old else s) for f, n, s in rows()]
    start = project.tuned(table, second)["start"]
    assert not start["used"]
    assert start["text"] == (
        "training began with the pretrained weights: 6 of the 18 test rows, or others of their groups, are among the "
        "rows that the model bbbbbbbbbbbb or one before it was trained or chosen by"
    )
    manifest = Manifest.load(project.workspace.manifest, project.workspace.root)
    assert not project.seen().met(manifest, manifest.rows("test")).any()

    # the second one's own data lack it; its weights have it from the first one, and the gate leaves it out
    chain, test_set = seen_in(project.workspace.models / second / "model"), freeze(manifest)
    assert chain is not None
    asked = Asked.of(manifest, test_set, champion, renew_share=1.0, seen=[chain])
    left_out = [sample.id for sample in manifest.samples(asked.rows[asked.learned])]
    assert len(left_out) == 6
    assert set(left_out) == old
    assert not Asked.of(manifest, test_set, champion, renew_share=1.0).learned.any()


def test_where_it_is_no_start(project: Project) -> None:
    usual = rows(per=12)

    def why(start: str, table: Sequence[Row] = usual, **settings: Any) -> str:
        found = project.tuned(table, start, **settings)["start"]
        assert not found["used"]
        head, _, reason = found["text"].partition(": ")
        assert head == "training began with the pretrained weights"
        return str(reason)

    cold = project.tuned(usual)
    model, found = project.keep("a"), read_facts(project.workspace.model)
    assert why("champion") == "tune.start is 'champion', which only a retrain looks up"
    assert why(model, strategy="probe") == "tune.strategy=probe does not go on from another model"
    assert not (project.workspace.model / SEEN).exists()
    assert seen_in(project.workspace.model) is None
    probe = project.keep("b")
    assert why(probe) == "the model bbbbbbbbbbbb stands on the pretrained weights itself"
    assert why(model, search={"trials": 1}) == "a search (tune.search.trials) tries its settings on these"
    assert why(model, strategy="auto") == "auto chose the probe"

    swapped = [(f, n, {"train": "val", "val": "train"}.get(s, s)) for f, n, s in usual]
    assert why(model, swapped) == "the model aaaaaaaaaaaa has learned from 12 of the 12 validation rows"

    folder = project.workspace.models / model / "model"
    found["backbone"]["weights"] = "0" * 64
    (folder / "bundle.json").write_text(json.dumps(found))
    assert why(model) == f"the model aaaaaaaaaaaa stands on another backbone ({found['backbone']['name']})"
    assert {**project.tuned(usual, model), "start": None} == cold
    (folder / SEEN).unlink()
    found["backbone"] = read_facts(project.workspace.model)["backbone"]
    (folder / "bundle.json").write_text(json.dumps(found))
    assert why(model) == "the model aaaaaaaaaaaa does not say which rows it has seen (it is of an older tl)"
    with pytest.raises(UserError, match=r"'tune\.start' can't be 'c+': there is no such model in .*bundles; allowed: "):
        project.tuned(usual, "c" * 32)


def test_auto_tries_it_only_where_it_has_not_learned_what_is_held_out(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tl_core.training import trial

    few = rows(per=12)
    project.tuned(few)
    model = project.keep("a")
    monkeypatch.setattr("tl_core.training.trial_plan.REPEATS", 1)
    fits: list[tuple[str, bool]] = []

    def told(job: Job) -> Fitted:
        fits.append((job.config.tune.strategy, job.start is not None))
        return fit(job)

    monkeypatch.setattr(trial, "fit", told)
    monkeypatch.setattr(trial, "choose", lambda found, losses: "finetune")
    monkeypatch.setattr(trial, "_flawless", lambda outcomes: False)
    start = project.tuned(few, model, strategy="auto", minutes=1000)["start"]
    assert ("finetune", False) in fits
    assert not any(started for _, started in fits)
    assert start["used"]
    assert start["text"].endswith("as this model has learned from the rows it held out")

    monkeypatch.setattr("tl_core.training.trial_plan.ENOUGH", 5)
    fits.clear()
    start = project.tuned(few, model, strategy="auto", minutes=1000)["start"]
    assert ("finetune", True) in fits
    assert start["used"]
    assert "trial" not in start["text"]

    monkeypatch.setattr("tl_core.training.trial_plan.SHARES", (2,))  # as where the budget has no room for all rows
    fits.clear()
    start = project.tuned(few, model, strategy="auto", minutes=1000)["start"]
    assert ("finetune", False) in fits
    assert not any(started for _, started in fits)
    assert start["used"]
    assert start["text"].endswith(
        "; auto's trial began with the pretrained weights, as it learned from one training row in 2, and this model "
        "may know the others"
    )
