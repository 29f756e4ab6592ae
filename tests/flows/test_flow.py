"""The flow under Prefect's test harness: tasks, logs, retries, and what the server shows."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

import tl_core.steps
from tl_core.errors import UserError
from tl_core.registry import load_registry
from tl_core.workspace import STEPS, Workspace, write_json

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import TaskRun


def fake_step(step: str) -> Any:
    def run(config: Any, registry: Any, workspace: Workspace, **_: Any) -> dict[str, Any]:
        outputs = {
            "seconds": 0.5, "rows": 6, "chosen": "tiny", "why": "the only candidate", "computed": 6, "reused": 0,
            "strategy": "probe", "watch": "accuracy", "validation": 0.75, "verdict": "Good.",
        }  # fmt: skip
        write_json(workspace.run_file(step), outputs)
        return outputs

    return run


@pytest.fixture
def _fake_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for step in STEPS:
        monkeypatch.setattr(tl_core.steps, step, fake_step(step))
    monkeypatch.setattr("tl_core.registry.load_registry", lambda: load_registry([]))


def ended_tasks(client: SyncPrefectClient, run_id: UUID, count: int) -> list[TaskRun]:
    """The flow run's tasks, once so many have ended: the server learns of them by events, some after the run's end."""
    from prefect.client.schemas.filters import FlowRunFilter

    deadline = time.monotonic() + 30
    while True:
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id={"any_": [run_id]}))
        if sum(task.end_time is not None for task in tasks) >= count or time.monotonic() > deadline:
            return tasks
        time.sleep(0.2)


@pytest.mark.usefixtures("_fake_steps", "logs_to_server")
def test_the_flow_is_five_named_tasks_with_their_logs(tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort
    from prefect.logging.handlers import APILogHandler
    from tl_flows.flow import pipeline

    state = pipeline(str(tmp_path), {"seed": 0}, return_state=True)
    results = state.result()
    assert list(results) == list(STEPS)
    assert all(not result.fresh and result.seconds == 0.5 for result in results.values())

    APILogHandler().flush()
    with get_client(sync_client=True) as client:
        run_id = state.state_details.flow_run_id
        run = client.read_flow_run(run_id)
        tasks = ended_tasks(client, run_id, len(STEPS))
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id])), sort=LogSort.TIMESTAMP_ASC)
    assert run.parameters == {"folder": str(tmp_path), "config": {"seed": 0}, "step_hours": 24.0}
    by_start = sorted(tasks, key=lambda t: t.start_time)
    assert [t.name.rpartition("-")[0] for t in by_start] == list(STEPS)
    assert {t.state_name for t in tasks} == {"Completed"}
    assert [log.message.split()[0] for log in logs if log.name == "tl"] == list(STEPS)


@pytest.mark.usefixtures("_fake_steps")
@pytest.mark.parametrize(
    ("error", "calls"), [(UserError("one class"), 1), (OSError("disk"), 2), (ValueError("bug"), 1)]
)
def test_only_what_may_pass_next_time_is_tried_again(
    prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, calls: int
) -> None:
    from tl_flows import flow

    seen: list[str] = []

    def select(*_: Any) -> dict[str, Any]:
        seen.append("select")
        raise error

    monkeypatch.setattr(tl_core.steps, "select", select)
    monkeypatch.setattr(flow.select, "retry_delay_seconds", 0)
    with pytest.raises(type(error), match=str(error)):
        flow.pipeline(str(tmp_path), {})
    assert len(seen) == calls


def test_no_task_keeps_results_or_decides_what_is_stale() -> None:
    from prefect.cache_policies import NO_CACHE
    from tl_flows import flow

    for step in STEPS:
        task = getattr(flow, step)
        assert (task.name, task.cache_policy, task.persist_result, task.retries) == (step, NO_CACHE, False, 1)


@pytest.mark.usefixtures("_fake_steps")
def test_a_task_can_be_called_without_prefect(tmp_path: Path) -> None:
    from tl_flows.engine import open_engine
    from tl_flows.flow import tune

    engine = open_engine(tmp_path, {}, 1.0)
    assert tune.fn(engine).outputs["strategy"] == "probe"
    assert json.loads((tmp_path / ".tl" / "run" / "tune.json").read_text())["validation"] == 0.75
