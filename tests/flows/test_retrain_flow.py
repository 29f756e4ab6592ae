"""The retrain as a flow: its tasks, and what its page and state say where a push fails or a decision is made good."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from tl_flows.model_registry import ModelRegistry
from tl_flows.retraining import pushing
from tl_flows.retraining.attempt import Attempt
from tl_flows.retraining.night import OUTCOME, Night
from tl_flows.retraining.outcome import Outcome
from versions import make_project, registered

BETTER = Outcome("promoted", "Promoted: better.", "v2", "v2")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = make_project(tmp_path / "shop")
    stages = "".join(f"  {step}: {{cmd: 'true'}}\n" for step in ("select", "extract"))
    (root / "dvc.yaml").write_text((root / "dvc.yaml").read_text() + stages)
    registered(root, 1).promote("v1", expected_champion=None, why="first")
    return root


def retrained(project: Path, monkeypatch: pytest.MonkeyPatch, *, pushes: bool, ended: Outcome = BETTER) -> Any:
    """Call the flow, whose work before the push has ended so; its state and its run's id."""
    from tl_flows.retraining import flow

    def work(night: Night) -> Outcome:
        night.make_good()
        night.pushes = pushes
        return ended

    monkeypatch.setattr(flow, "_retrained", work)
    return flow.retrain(str(project), return_state=True)


def shown(state: Any, seconds: float = 2.0) -> tuple[list[str], list[str]]:
    """The tasks of a run, for the first of which it waits so long, and its pages in order."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter

    run = state.state_details.flow_run_id
    with get_client(sync_client=True) as client:
        pages = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])))
        end = time.monotonic() + seconds  # the server learns of tasks by events
        while not (tasks := client.read_task_runs(flow_run_filter=FlowRunFilter(id={"any_": [run]}))):
            if time.monotonic() > end:
                break
            time.sleep(0.1)
    return [task.name.rpartition("-")[0] for task in tasks], [
        str(page.data) for page in sorted(pages, key=lambda page: page.created)
    ]


def logged(state: Any) -> list[str]:
    """What a run's history says."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    with get_client(sync_client=True) as client:
        run = LogFilterFlowRunId(any_=[state.state_details.flow_run_id])
        return [line.message for line in client.read_logs(LogFilter(flow_run_id=run))]


@pytest.mark.usefixtures("logs_to_server")
def test_an_unexpected_fault_of_the_push_leaves_a_promotion_what_it_is(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path) -> None:
        raise RuntimeError("a bug in a library")

    monkeypatch.setattr(pushing, "push", broken)
    state = retrained(project, monkeypatch, pushes=True)
    said = f"Promoted: better. Not pushed: unexpected RuntimeError: a bug in a library ({pushing.REMEDY})"
    assert (state.type.value, state.name, state.message) == ("COMPLETED", "Promoted", said)
    outcome = state.result()
    assert (outcome.state, outcome.reason, outcome.exit_code) == ("promoted", said, 0)
    assert json.loads((project / OUTCOME).read_text())["reason"] == said
    tasks, (page,) = shown(state, seconds=30)
    assert tasks == ["push"]
    assert said in page
    (fault,) = [line for line in logged(state) if line.startswith("the push failed unexpectedly\n")]
    assert "Traceback (most recent call last)" in fault
    assert "RuntimeError: a bug in a library" in fault


@pytest.mark.usefixtures("prefect_server")
def test_a_fault_that_a_full_disk_explains_is_told_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tl_flows.retraining import flow

    def fail(_: Night) -> Outcome:
        raise RuntimeError("Server error '500 Internal Server Error'")

    monkeypatch.setattr(flow, "_retrained", fail)
    for little, told in ((0, "Server error"), (1 << 60, "the disk of .* is full \\(.* MB free\\): Server error")):
        monkeypatch.setattr("tl_flows.project.LITTLE_BYTES", little)
        assert flow.retrain(str(project), return_state=True).type.value == "FAILED"
        assert re.match(told, json.loads((project / OUTCOME).read_text())["reason"])


@pytest.mark.usefixtures("prefect_server")
def test_without_a_push_there_is_no_such_task(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "push", lambda _: pytest.fail("pushed"))
    state = retrained(project, monkeypatch, pushes=False)
    assert shown(state) == ([], ["# Promoted\n\nPromoted: better.\n\n- version: v2\n- serves now: v2\n"])


@pytest.mark.usefixtures("prefect_server")
def test_a_decision_that_is_made_good_has_a_page_of_its_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Outcome("refused", "Refused: no better.", "v1", "v1", folder="reports/v1")
    Attempt.begin("base", 1_000.0).keep(project)
    monkeypatch.setattr("tl_flows.retraining.night.settle", lambda *_: first)
    _, (before, page) = shown(retrained(project, monkeypatch, pushes=False))
    assert before.startswith("# Refused\n\nRefused: no better.\n\n- version: v1\n")
    assert "Before that: v1: Refused: no better." in page
    Attempt.begin("base", 2_000.0).keep(project)
    _, (only,) = shown(retrained(project, monkeypatch, pushes=False, ended=first))
    assert only == before
    assert ModelRegistry.open(project).state().champion is not None
