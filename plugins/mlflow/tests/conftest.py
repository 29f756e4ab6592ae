"""A project that has just been evaluated, as the watcher finds it, and settings that keep the tests to themselves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import reports
import tunings
from mlflow_server import Server, serving

from tl_core import Workspace

METRICS = {"accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.94, "floor_majority": 0.2, "n_test": 200}
OUTPUTS = {
    "metrics": METRICS,
    "watch": "accuracy",
    "verdict": "Accuracy 0.900.",
    "seconds": 4.5,
    "started": "2026-03-01T10:00:00+00:00",
    "host": "x86_64, Linux, Python 3.11.7",
}


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sends to a server of the user's, and mlflow's own folders lie apart."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def evaluated(tmp_path: Path) -> Workspace:
    """The files of a fine-tuned model; `select` was restored, so that nothing is known of its run."""
    workspace = Workspace(root=tmp_path / "birds", store=tmp_path / "store", cache=tmp_path / "cache")
    folder = workspace.step("evaluate")
    facts = replace(reports.text_demo(), strategy="lp_ft", tuning=reports.tuned(**tunings.by_auto()))
    facts.save(folder / "report.json")
    workspace.metrics.write_text(json.dumps(METRICS))
    (folder / "report.html").write_text("<p>the page</p>")
    (folder / "model_card.md").write_text("# the card")
    workspace.run_file("tune").parent.mkdir(parents=True)
    workspace.run_file("tune").write_text('{"seconds": 12.25}')
    workspace.run_file("evaluate").write_text(json.dumps(OUTPUTS))
    return workspace


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that answers as MLflow's does."""
    with serving() as told:
        yield told


@pytest.fixture
def watch(evaluated: Workspace) -> Callable[[str], list[str]]:
    """Tell the plugin that a step has finished, as the engine does; the lines of watchers that failed."""
    import tl_mlflow

    from tl_core.registry import load_registry

    registry = load_registry([("tl_mlflow", tl_mlflow)])
    return lambda step: registry.finished(step, OUTPUTS, evaluated)
