"""What a whole run does around the flow."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tl_flows
from tl_flows import prefect_env, runs
from tl_flows.engine import StepResult
from tl_flows.flow_session import FlowSession

from tl_core.config import RunConfig
from tl_core.errors import UserError
from tl_core.workspace import STEPS, Workspace, write_json


def test_options_and_settings_become_one_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights" / "mine").mkdir(parents=True)
    config = runs.outside_config(
        Path(), "image", ["resnet18", "weights/mine", "arch@weights/mine"], {"tune.epochs": 2, "modality": "text"}
    )
    assert config.data.path == str(tmp_path.resolve())
    assert config.modality == "image"
    assert config.select.backbones == (
        "resnet18",
        f"{tmp_path.resolve()}/weights/mine",
        f"arch@{tmp_path.resolve()}/weights/mine",
    )
    assert config.tune.epochs == 2


def test_in_a_project_paths_inside_it_stay_portable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path.resolve()
    (root / "weights" / "mine").mkdir(parents=True)
    monkeypatch.chdir(root / "weights")
    edits = runs.option_edits(None, ["./mine", "owner/name"], root)
    assert edits == {"select.backbones": ["weights/mine", "owner/name"]}
    assert runs.option_edits(None, []) == {}


def make_outputs(workspace: Workspace, accuracy: float) -> None:
    write_json(workspace.metrics, {"accuracy": accuracy})
    write_json(workspace.ranking, {"chosen": "tiny"})
    for path in (
        workspace.step("evaluate") / "predictions.parquet",
        workspace.step("evaluate") / "model_card.md",
        workspace.quarantine,
        workspace.tuning,
        workspace.model / "bundle.json",
        workspace.model / "head.safetensors",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(str(accuracy))


@pytest.fixture
def _no_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow replaced by what it leaves behind, so that a test takes no server."""

    def call(self: FlowSession, folder: Path, config: dict[str, Any]) -> dict[str, StepResult]:
        make_outputs(runs.outside_workspace(folder, RunConfig()), config["seed"] / 10)
        return {step: StepResult(step, False, {"seconds": 1.0}) for step in STEPS}

    def render(workspace: Workspace, target: Path) -> Path:
        target.write_text("page")
        return target

    monkeypatch.setattr(FlowSession, "call", call)
    monkeypatch.setattr(runs, "render_timed", render)
    monkeypatch.setattr(prefect_env, "find_server", lambda: prefect_env.Server(None, {}))


@pytest.mark.usefixtures("_no_prefect")
def test_the_output_folder_ends_with_what_users_look_for(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    out = tmp_path / "out"
    for seed in (4, 9):  # a second run replaces the first one's files
        run = tl_flows.run(tmp_path / "data", out=out, settings={"seed": seed})
        assert run.metrics == {"accuracy": seed / 10}
    assert run.report == out / "report.html"
    assert run.model_folder == out / "model"
    assert sorted(p.name for p in out.iterdir()) == [
        ".tl", "artifacts", "metrics.json", "model", "model_card.md", "predictions.parquet", "quarantine.csv",
        "ranking.json", "report.html", "tune.json",
    ]  # fmt: skip
    assert (out / "predictions.parquet").read_text() == "0.9"
    assert sorted(p.name for p in (out / "model").iterdir()) == ["bundle.json", "head.safetensors"]


def test_a_run_into_a_file_system_without_links_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", link)
    workspace = Workspace(tmp_path, tmp_path, tmp_path)
    make_outputs(workspace, 0.5)
    runs.publish(workspace)
    assert (tmp_path / "quarantine.csv").read_text() == "0.5"


def test_without_anything_to_do_no_server_is_started(dvc_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_env, "find_server", lambda: prefect_env.Server(None, {}))
    monkeypatch.setattr("tl_flows.engine.Stages.up_to_date", lambda self: True)
    state = dvc_project / ".tl"
    write_json(state / "run" / "extract.json", {"computed": 2, "reused": 1, "seconds": 3.0})
    (state / "report.html").write_text("page")
    write_json(dvc_project / "artifacts" / "evaluate" / "metrics.json", {"accuracy": 0.5})
    run = runs.run_project(dvc_project, {"seed": 5})
    assert all(step.fresh for step in run.steps.values())
    assert run.steps["extract"].outputs["computed"] == 2
    assert run.metrics == {"accuracy": 0.5}
    assert (dvc_project / "params.yaml").read_text().startswith("seed: 5 # of everything\n")


def test_data_that_git_has_left_behind_are_refused_before_a_server_starts(
    dvc_project: Path, git: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dvc(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=dvc_project, check=True, capture_output=True)

    monkeypatch.setattr(prefect_env, "find_server", lambda: prefect_env.Server(None, {}))
    (dvc_project / "data" / "new.txt").write_text("new\n")
    dvc("add", "-q", "data")
    git(dvc_project, "commit", "-qam", "new data")
    git(dvc_project, "checkout", "-q", "HEAD~1")
    dvc("checkout", "-q", "data.dvc")
    git(dvc_project, "checkout", "-q", "-")
    record = (dvc_project / "data.dvc").read_bytes()
    with pytest.raises(UserError, match=r"an earlier version, .* `dvc pull data` brings those"):
        runs.run_project(dvc_project, {})
    assert (dvc_project / "data.dvc").read_bytes() == record


def test_the_timed_report_is_the_steps_own_with_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tl_core import report

    @dataclasses.dataclass(frozen=True)
    class Facts:
        run: Any = None
        cpu: Any = None

    monkeypatch.setattr(report.ReportFacts, "load", lambda path: Facts())
    monkeypatch.setattr(report, "render_report", lambda facts: f"{facts.run} {facts.cpu}")
    workspace = Workspace(tmp_path, tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"no report in .*; `tl run` makes one"):
        runs.render_timed(workspace, tmp_path / "report.html")
    write_json(workspace.step("evaluate") / "report.json", {})
    write_json(workspace.run_file("tune"), {"seconds": 2.5})  # of a tl that told no CPU seconds
    write_json(workspace.run_file("evaluate"), {"seconds": 4.0, "cpu_seconds": 6.5})
    page = runs.render_timed(workspace, tmp_path / "report.html").read_text()
    assert page == "{'tune': 2.5, 'evaluate': 4.0} {'evaluate': 6.5}"
