# mypy: disable-error-code="untyped-decorator"
"""A retrain as a Prefect flow: its tasks are retried where another try may help, and its page carries the decision."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from tl_core.errors import UserError
from tl_core.workspace import STEPS
from tl_flows.engine import StepResult
from tl_flows.flow import step
from tl_flows.mirrors import tell_registry
from tl_flows.prefect_env import LOGGERS
from tl_flows.project import full_disk, main_worktree, require_project
from tl_flows.retraining.attempt import sole_retrain
from tl_flows.retraining.flow_runs import put_on_record
from tl_flows.retraining.night import Night
from tl_flows.retraining.outcome import Outcome, as_markdown
from tl_flows.retraining.pushing import pushed
from tl_flows.retraining.sources import Asked
from tl_flows.stage_process import StageError

if TYPE_CHECKING:
    from tl_core.gate import Decision

log = logging.getLogger(LOGGERS[0])


@step(name="new data", retries=3, retry_delay_seconds=[5, 30, 120])
def prepare(night: Night) -> None:
    """The worktree with tonight's code, parameters and data."""
    night.prepare()


@step(name="pipeline step", task_run_name="{name}")
def run(night: Night, name: str) -> StepResult:
    """A step of the pipeline."""
    return night.run(name)


@step(name="gate")
def decide(night: Night) -> Decision:
    """The new model against the one that serves."""
    return night.decide()


@step(name="promote or refuse", retries=0)
def conclude(night: Night, decision: Decision) -> Outcome:
    """Commit, register, and promote where the gate says so."""
    return night.conclude(decision)


@step(name="push", retries=0)  # it tries again by itself
def share(night: Night, outcome: Outcome) -> Outcome:
    """The versions that others lack, with models and data, for other machines."""
    return pushed(night.main, outcome)


@flow(name="tl-retrain", persist_result=False)
def retrain(
    folder: str = ".",
    data: str | None = None,
    revision: str | None = None,
    step_hours: float = 24.0,
    wait_minutes: float = 0.0,
) -> State[Outcome]:
    """From new data to a better model, or to a reason why not.

    folder: a project; data: folder or table whose content becomes the data [the project's own, as they lie]; revision:
    whose code and parameters are used [the last commit]; step_hours: a step that takes longer is ended; wait_minutes:
    how long to stand in the queue where another retrain of the project runs.
    """
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    project = main_worktree(require_project(Path(folder)))
    with sole_retrain(project, wait_minutes * 60):
        put_on_record(project, str(flow_run.id))
        night = Night(project, Asked(data, revision, step_hours))
        try:
            outcome = _retrained(night)
            if night.pushes:
                outcome = share(night, outcome)
        except Exception as error:
            full = None if isinstance(error, UserError | StageError) else full_disk(project)
            _tell(night.end(Outcome("failed", f"{full}: {error}" if full else str(error))), night)
            raise
        outcome = night.end(outcome)
    _tell(outcome, night)
    return Completed(name=outcome.state.capitalize(), message=outcome.reason, data=outcome)


def _retrained(night: Night) -> Outcome:
    made_good = night.make_good()
    prepare(night)
    if night.nothing_new():
        return made_good or night.idle()
    for name in STEPS:
        run(night, name)
    if night.repeats():
        return made_good or night.idle()
    concluded: Outcome = conclude(night, decide(night))
    return concluded


def _tell(outcome: Outcome, night: Night) -> None:
    """The outcome on the run's page, and to the watchers; neither changes what happened."""
    first = night.made_good
    if first is not None and first.version != outcome.version:
        _show(first)
    _show(outcome)
    failures: list[str] = []
    if outcome.state != "nothing new":
        from tl_core.registry import load_registry

        failures += load_registry().retrained(outcome.as_json(), night.main)
    told = tell_registry(night.main)  # on any night: a mirror that was away catches up
    for line in told.said:
        log.info(line)
    for failure in (*failures, *told.failures):
        log.warning(failure)


def _show(outcome: Outcome) -> None:
    with contextlib.suppress(Exception):  # a server that can't take it
        create_markdown_artifact(as_markdown(outcome), key="tl-retrain", description=outcome.reason)
