# mypy: disable-error-code="untyped-decorator"
"""The pipeline as a Prefect flow. DVC or the store decide what is computed; Prefect orders, retries and records."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from tl_flows.engine import Engine, StepResult, open_engine
from tl_flows.prefect_env import LOGGERS
from tl_flows.stage_process import StageError


def may_pass_next_time(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry what a disk, a network or the kernel's memory killer did; a fault in data or code only repeats."""
    try:
        state.result()
    except StageError as error:
        return error.may_pass
    except OSError:
        return True
    except BaseException:
        return False
    return False


step = functools.partial(
    task,
    retries=1,
    retry_delay_seconds=5,
    retry_condition_fn=may_pass_next_time,
    cache_policy=NO_CACHE,  # Prefect never decides what is stale
    persist_result=False,
)


@step(name="version")
def version(engine: Engine) -> StepResult:
    """Which bytes the data are, what changed, how they split, and which samples are unusable."""
    return engine.run("version")


@step(name="select")
def select(engine: Engine) -> StepResult:
    """Which backbone: candidates ranked on a sample of the training rows."""
    return engine.run("select")


@step(name="extract")
def extract(engine: Engine) -> StepResult:
    """The features of every row, from the store or computed into it."""
    return engine.run("extract")


@step(name="tune")
def tune(engine: Engine) -> StepResult:
    """Train the head, and the top of the backbone where asked."""
    return engine.run("tune")


@step(name="evaluate")
def evaluate(engine: Engine) -> StepResult:
    """Measure on the test rows, beside both floors."""
    return engine.run("evaluate")


@flow(name="tl", persist_result=False)
def pipeline(
    folder: str = ".", config: dict[str, Any] | None = None, step_hours: float = 24.0
) -> dict[str, StepResult]:
    """From data to a model and a report.

    folder: a DVC project, whose stages run where they are stale; or, with a config, the output folder of a run
    outside of any project. step_hours: a stage that takes longer is ended.
    """
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    engine = open_engine(Path(folder), config, step_hours)
    version(engine)
    select(engine)
    extract(engine)
    tune(engine)
    evaluate(engine)
    return engine.results
