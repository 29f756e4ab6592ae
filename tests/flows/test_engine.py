"""The two ways a step runs, without Prefect."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tl_flows.steps
from tl_flows.engine import InProcess, Stages, open_engine, open_project

import tl_core.steps
from tl_core.config import RunConfig
from tl_core.errors import UserError
from tl_core.registry import Registry, load_registry
from tl_core.workspace import Workspace


def workspace(root: Path) -> Workspace:
    return Workspace(root=root, store=root / "store", cache=root / "cache")


@pytest.fixture
def stages(dvc_project: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    monkeypatch.setattr("tl_flows.engine.STEPS", ("version", "select"))
    return open_project(dvc_project, {})


class Watcher:
    """A plugin that hears of finished steps."""

    heard: list[tuple[str, dict[str, Any]]]

    def __init__(self, *, fails: bool = False) -> None:
        self.heard = []
        self.fails = fails

    def registry(self) -> Registry:
        from types import ModuleType

        from tl_core.hookspecs import hookimpl

        module = ModuleType("watcher")

        def tl_step_finished(step: str, outputs: dict[str, Any]) -> None:
            self.heard.append((step, outputs))
            if self.fails:
                raise RuntimeError("no network")

        module.tl_step_finished = hookimpl(tl_step_finished)  # type: ignore[attr-defined]
        return load_registry([("watcher", module)])


def test_a_step_in_process_tells_the_watchers_and_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outputs = {"chosen": "tiny", "why": "the only candidate", "seconds": 2.0, "notes": ["guessed"]}
    monkeypatch.setattr(tl_core.steps, "select", lambda config, registry, workspace: outputs)
    watcher = Watcher(fails=True)
    engine = InProcess(workspace(tmp_path), RunConfig(), watcher.registry)
    with caplog.at_level(logging.INFO, "tl"):
        result = engine.run("select")
    assert (result.fresh, result.seconds, result.outputs) == (False, 2.0, outputs)
    assert engine.results == {"select": result}
    assert watcher.heard == [("select", outputs)]
    assert caplog.messages == [
        "plugin watcher failed in tl_step_finished: no network",
        "select    tiny, the only candidate  [2.0 s]",
        "          - guessed",
    ]


def test_what_a_stage_says_of_its_engine_is_shown_at_once(stages: Stages, caplog: pytest.LogCaptureFixture) -> None:
    with (stages.root / "stage.py").open("a") as stream:
        stream.write("print('tl> extract   tiny: torch 2.14.1, 100% float32', file=sys.stderr)\n")
    with caplog.at_level(logging.INFO, "tl"):
        stages.run("version")
    shown = [record.message for record in caplog.records if record.name == "tl"]
    assert shown[0] == "extract   tiny: torch 2.14.1, 100% float32"
    assert "did version" in [record.message for record in caplog.records if record.name == "tl.stage"]


def test_version_in_a_project_gets_dvcs_digests_and_the_changed_files(
    dvc_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def version(config: RunConfig, registry: Registry, workspace: Workspace, **more: Any) -> dict[str, Any]:
        given.update(more)
        return {"rows": 2, "seconds": 0.1}

    monkeypatch.setattr(tl_core.steps, "version", version)
    engine = open_project(dvc_project, {})
    config = RunConfig.model_validate({"data": {"path": "data/a"}})
    outputs = tl_flows.steps.run_project_step("version", config, Watcher().registry(), engine.workspace)
    assert sorted(given["digests"]) == ["1.txt", "2.txt"]
    assert outputs["files"].startswith("2 files, 32 B; no earlier version")
    assert engine.result("version", fresh=False).outputs == outputs


def test_a_stage_runs_where_it_is_stale_and_only_there(stages: Stages) -> None:
    assert not stages.up_to_date()
    first = stages.run("version")
    assert (first.fresh, first.seconds, first.outputs["rows"]) == (False, 1.5, 3)
    assert stages.run("select").fresh is False
    again = stages.run("version")
    assert (again.fresh, again.seconds, again.outputs["rows"]) == (True, 0.0, 3)
    assert stages.up_to_date()


def test_what_dvc_restores_is_not_told_as_a_run(stages: Stages) -> None:
    stages.run("version")
    (stages.root / "params.yaml").write_text("seed: 1\n")
    assert stages.run("version").outputs["seconds"] == 1.5
    (stages.root / "params.yaml").write_text("seed: 0\n")
    restored = stages.run("version")
    assert (restored.fresh, restored.outputs) == (False, {})


def test_changed_data_become_a_new_version_before_the_stage_runs(stages: Stages) -> None:
    stages.run("version")
    (stages.root / "data" / "new.txt").write_text("new\n")
    assert not stages.up_to_date()
    assert not stages.run("version").fresh
    stages.run("select")
    done = subprocess.run([sys.executable, "-m", "dvc", "status", "-q"], cwd=stages.root)
    assert done.returncode == 0  # nothing to do, the data's own record included


def test_missing_data_are_fetched(stages: Stages, tmp_path: Path) -> None:
    def dvc(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=stages.root, check=True, capture_output=True)

    dvc("remote", "add", "-d", "here", str(tmp_path / "remote"))
    dvc("push", "-q")
    shutil.rmtree(stages.root / "data")
    shutil.rmtree(stages.root / ".dvc" / "cache")
    stages.run("version")
    assert (stages.root / "data" / "a" / "1.txt").is_file()


def test_data_that_are_nowhere_are_named(stages: Stages) -> None:
    shutil.rmtree(stages.root / "data")
    shutil.rmtree(stages.root / ".dvc" / "cache")
    with pytest.raises(UserError, match=r"the data of data\.dvc are missing and can't be fetched"):
        stages.run("version")


def test_the_flow_opens_the_right_engine(dvc_project: Path, tmp_path: Path) -> None:
    assert isinstance(open_engine(dvc_project / "data", None, 1.0), Stages)
    outside = open_engine(tmp_path / "out", {"seed": 3}, 1.0)
    assert isinstance(outside, InProcess)
    assert outside.config.seed == 3
    with pytest.raises(UserError, match="lies in no tl project"):
        open_engine(tmp_path, None, 1.0)


def test_a_record_of_the_installed_code_is_kept_true(dvc_project: Path) -> None:
    record = dvc_project / "tl-code.json"
    open_project(dvc_project, {})
    assert not record.exists()
    record.write_text("{}")
    open_project(dvc_project, {})
    first = record.read_bytes()
    assert b"tl_text" in first
    assert b"tl_mlflow" not in first  # it only watches, and can change no result
    open_project(dvc_project, {})
    assert record.read_bytes() == first
