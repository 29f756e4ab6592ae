"""What MLflow is told of a run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import reports
import tunings
from tl_mlflow.record import REPORT_TAG, Point, Record, curves, metrics, params, record_of
from tl_mlflow.revision import code_revision, project_folder

from tl_core import Workspace

from .conftest import git


def record(workspace: Workspace) -> Record:
    return record_of(workspace, json.loads(workspace.run_file("evaluate").read_text()))


def test_a_run_says_what_was_learned_from_which_data_with_which_backbone(evaluated: Workspace) -> None:
    told, facts = record(evaluated), reports.text_demo()
    assert told.name == f"{facts.backbone.name} lp_ft"
    assert told.about.startswith("Accuracy ")
    assert told.started == 1772359200000  # 2026-03-01T10:00:00+00:00 in milliseconds
    wanted = {
        "project": "birds",
        "data_version": facts.data.version,
        "backbone": facts.backbone.name,
        "strategy": "lp_ft",
        "watch": facts.evaluation.watch,
        "host": "x86_64, Linux, Python 3.11.7",
    }
    assert {name: told.tags[name] for name in wanted} == wanted
    assert told.params == {
        "seed": "0",
        "data.path": "samples/intents.csv",
        "data.label": "intent",
        "data.group": "author",
        "tune.strategy": "probe",
    }
    names = [Path(path).name for path in told.files]
    assert names == ["report.html", "report.json", "model_card.md", "metrics.json"]


def test_only_steps_that_ran_here_have_seconds(evaluated: Workspace) -> None:
    points = {point.name: point.value for point in record(evaluated).points if point.name.startswith("seconds/")}
    assert points == {"seconds/tune": 12.25, "seconds/evaluate": 4.5}


def test_a_record_goes_to_another_process_whole(evaluated: Workspace) -> None:
    told = record(evaluated)
    assert Record.parse(told.dump()) == told
    assert asdict(told)["points"]


def test_values_that_mlflow_may_refuse_are_left_out(evaluated: Workspace) -> None:
    outputs = json.loads(evaluated.run_file("evaluate").read_text())
    outputs["metrics"] |= {"mse": float("inf"), "r2": float("nan")}
    assert not {"mse", "r2"} & {point.name for point in record_of(evaluated, outputs).points}


def test_params_are_spelt_as_in_the_file() -> None:
    config = {"seed": 0, "modality": None, "tune": {"refit": True, "strengths": [1.0, 0.1], "search": {"trials": 3}}}
    assert params(config) == {
        "seed": "0",
        "modality": "null",
        "tune.refit": "true",
        "tune.strengths": "[1.0, 0.1]",
        "tune.search.trials": "3",
    }


def test_intervals_are_the_ends_of_their_metric() -> None:
    told = metrics({"macro_f1": 0.8, "macro_f1_low": 0.7, "macro_f1_high": 0.9, "n_low": 3})
    assert list(told) == [
        Point("macro_f1", 0.8),
        Point("macro_f1.low", 0.7),
        Point("macro_f1.high", 0.9),
        Point("n_low", 3.0),  # no interval's end: there is no `n`
    ]


@pytest.mark.parametrize("name", sorted(tunings.DEMOS))
def test_every_kind_of_training_has_its_curves(name: str) -> None:
    tuning = tunings.DEMOS[name]
    told: dict[str, list[tuple[int, float]]] = {}
    for point in curves(tuning):
        told.setdefault(point.name, []).append((point.step, point.value))
    parts = {"finetune": "history", "probe": "path", "curve": "learning_curve"}
    parts |= {"contrastive": "contrastive", "search": "search"}
    assert {curve.partition("/")[0] for curve in told} == {parts[key] for key in parts if tuning.get(key)}
    if tuning.get("finetune"):
        epochs = tuning["finetune"]["history"]
        assert told["history/val"] == [(row["epoch"], row["val"]) for row in epochs]
        assert told["history/lr"] == [(row["epoch"], row["lr"]) for row in epochs]
    if tuning.get("curve"):
        assert told["learning_curve/low"] == [(row["rows"], row["low"]) for row in tuning["curve"]["points"]]
    if tuning.get("contrastive"):
        assert told["contrastive/loss"] == [(1, 0.21), (2, 0.12), (3, 0.08)]


def test_what_was_not_measured_is_no_point() -> None:
    epochs = [{"epoch": 1, "loss": 0.5, "val": None}, {"epoch": 2, "loss": None, "val": 0.7}]
    assert list(curves({"finetune": {"history": epochs}})) == [
        Point("history/loss", 0.5, 1),
        Point("history/val", 0.7, 2),
    ]


def test_a_run_is_found_by_its_report(evaluated: Workspace) -> None:
    report = (evaluated.step("evaluate") / "report.json").read_bytes()
    assert record(evaluated).tags[REPORT_TAG] == hashlib.md5(report).hexdigest()


def test_a_project_is_one_folder_in_all_worktrees(tmp_path: Path) -> None:
    main = tmp_path / "birds"
    (main / "demo" / "owls").mkdir(parents=True)
    assert project_folder(main / "demo" / "owls") == main / "demo" / "owls"  # outside of git
    git(main, "init", "-q")
    git(main, "commit", "-q", "--allow-empty", "-m", "start")
    tree = main / ".tl" / "retrain" / "tree"
    git(main, "worktree", "add", "-q", "--detach", str(tree))
    (tree / "demo" / "owls").mkdir(parents=True)
    found = [project_folder(root / part) for root in (main, tree) for part in ("", "demo/owls")]
    assert found == [main, main / "demo" / "owls"] * 2


def test_the_code_is_known_by_its_commit(tmp_path: Path) -> None:
    assert code_revision(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert code_revision(tmp_path) is None  # no commit yet
    (tmp_path / "dvc.lock").write_text("1")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "dvc.lock").write_text("what a run writes")
    assert str(code_revision(tmp_path)) == commit
    (tmp_path / "code.py").write_text("2")
    assert str(code_revision(tmp_path)) == f"{commit} with uncommitted changes"
