"""Whole nights that go another way than most: killed before its page, sent to others, with real fine-tuning."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from messages import lines, write_rows
from tl_flows.bundles import bundle_at
from tl_flows.dvc_objects import objects_at
from tl_flows.git import git
from tl_flows.model_registry import ModelRegistry
from tl_flows.params import edit_params

NIGHT = [sys.executable, "-m", "tl_flows", "retrain", "--json"]
# ends at the instant when the version is registered and nothing of it is published
KILLED = """
import os, signal, sys
from tl_flows.cli import main
from tl_flows.retraining import night
night.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(main(["retrain"]))
"""


def run(project: Path, command: list[str], *codes: int) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode in codes, done.stderr + done.stdout
    return done.stdout


def night(project: Path) -> dict[str, Any]:
    """Retrain to the end, which has to be a promotion or nothing new; the outcome."""
    outcome: dict[str, Any] = json.loads(run(project, NIGHT, 0))
    return outcome


def settings(project: Path, rows: int, **edits: Any) -> None:
    """Commit so many rows and what the parameters say besides."""
    write_rows(project / "data" / "messages.csv", lines(rows, seed=0))
    edit_params(project / "params.yaml", {key.replace("__", "."): value for key, value in edits.items()})
    git(project, "commit", "--quiet", "--all", "--message", "settings")


def tasks(project: Path) -> list[str]:
    """The tasks of all flow runs that Prefect knows, by their names."""
    with closing(sqlite3.connect(project / ".prefect" / "prefect.db")) as database:
        return [name.rpartition("-")[0] for (name,) in database.execute("select name from task_run")]


def pages(project: Path) -> list[str]:
    """What the runs' pages in Prefect show, in order."""
    with closing(sqlite3.connect(project / ".prefect" / "prefect.db")) as database:
        return [json.loads(data) for (data,) in database.execute("select data from artifact order by created")]


@pytest.mark.slow
def test_what_a_kill_left_unpublished_is_published_by_the_next_night(project: Path) -> None:
    run(project, [sys.executable, "-c", KILLED], -signal.SIGKILL)
    registry = ModelRegistry.open(project)
    assert [version.name for version in registry.state().versions] == ["v1"]
    assert registry.state().champion is None
    folder = project / ".tl" / "retrain" / "reports" / "v1"
    assert not folder.exists()

    made_good = night(project)
    assert (made_good["state"], made_good["version"], made_good["champion"]) == ("promoted", "v1", "v1")
    assert made_good["folder"] == str(folder)
    assert made_good["data"].startswith("files: ")
    assert json.loads((folder / "decision.json").read_text(encoding="utf-8")) == made_good["decision"]
    page = (folder / "decision.html").read_text(encoding="utf-8")
    assert "Promoted: v1 is the first to serve" in page
    assert "all-minilm-l6-v2-first3" in (folder / "report.html").read_text(encoding="utf-8")
    (shown,) = pages(project)
    assert shown.startswith("# Promoted\n")
    assert f"- report: {folder}" in shown
    assert "push" not in tasks(project)
    assert not (project / ".tl" / "retrain" / "decided.json").exists()


@pytest.mark.slow
def test_a_night_sends_its_version_to_others(project: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "hub.git")
    git(project, "remote", "add", "origin", str(tmp_path / "hub.git"))
    run(
        project,
        [sys.executable, "-m", "dvc", "remote", "add", "--quiet", "--default", "store", str(tmp_path / "store")],
        0,
    )
    settings(project, 60, registry__push=True)
    git(project, "push", "--quiet", "origin", "main")
    promoted = night(project)
    assert (promoted["state"], promoted["champion"]) == ("promoted", "v1")
    assert "Not pushed" not in promoted["reason"]
    assert tasks(project).count("push") == 1

    git(tmp_path, "clone", "--quiet", "--branch", "main", "hub.git", "other")
    there = tmp_path / "other"
    champion = ModelRegistry.open(there).state().champion
    assert champion is not None
    assert champion.name == "v1"
    ours = bundle_at(project, champion.commit)
    theirs = bundle_at(there, champion.commit)
    assert {file.name: file.read_bytes() for file in theirs.iterdir() if file.is_file()} == {
        file.name: file.read_bytes() for file in ours.iterdir() if file.is_file()
    }
    wanted = objects_at(there, champion.commit, whole=True)
    assert not wanted.lost
    assert {"data"} <= {one.output for one in wanted.objects}


@pytest.mark.slow
def test_a_night_with_fine_tuning(project: Path) -> None:
    settings(
        project, 60, tune__strategy="finetune", tune__epochs=1, tune__train_from=1, evaluate__scratch_minutes=0,
        evaluate__robustness=0,
    )  # fmt: skip
    outcome: dict[str, Any] = json.loads(run(project, NIGHT, 0, 3))  # one epoch may not be enough to beat the floors
    assert (outcome["state"], outcome["version"]) in (("promoted", "v1"), ("refused", "v1"))
    tuned = project / ".tl" / "retrain" / "tree" / "artifacts" / "tune"
    told = json.loads((tuned / "tune.json").read_text(encoding="utf-8"))
    assert told["strategy"] == "finetune"
    assert [epoch["epoch"] for epoch in told["finetune"]["history"]] == [1]
    assert told["finetune"]["trained_parameters"] > 0
    assert Path(outcome["folder"], "decision.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_night_takes_the_data_of_its_revision(project: Path) -> None:
    of_commit = [*NIGHT, "--revision", "HEAD"]
    assert json.loads(run(project, of_commit, 0))["version"] == "v1"
    assert json.loads(run(project, of_commit, 0))["state"] == "nothing new"
    write_rows(project / "data" / "messages.csv", lines(150, seed=0))
    run(project, [sys.executable, "-m", "dvc", "commit", "--force", "data.dvc"], 0)
    git(project, "commit", "--quiet", "--all", "--message", "more rows")
    write_rows(project / "data" / "messages.csv", lines(60, seed=2))  # which no commit has
    assert json.loads(run(project, of_commit, 0, 3))["version"] == "v2"
    assert git(project, "show", "model@v2.0.0:data.dvc") == git(project, "show", "HEAD:data.dvc")
