"""The two ways a step runs: in this process, or as a DVC stage in a process of its own."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_core.config import RunConfig, validate
from tl_core.errors import UserError
from tl_core.workspace import STEPS, Workspace
from tl_flows import versioning
from tl_flows.code_version import FILE as CODE_VERSION
from tl_flows.code_version import write_code_version
from tl_flows.params import edit_params
from tl_flows.prefect_env import LOGGER, STAGE_LOGGER
from tl_flows.project import PARAMS, outside_workspace, project_workspace, require_project, writable
from tl_flows.stage_process import NOTE, StageError, run_dvc
from tl_flows.summary import describe

if TYPE_CHECKING:
    from tl_core.registry import Registry

log = logging.getLogger(LOGGER)
stage_log = logging.getLogger(STAGE_LOGGER)


@dataclass(frozen=True)
class StepResult:
    """A finished step. fresh: it was up to date and did not run; outputs: its small results (of its last run).

    Outputs are empty where the step ran elsewhere or before, and DVC restored what it had made.
    """

    step: str
    fresh: bool
    outputs: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Seconds that the step took in this run."""
        return 0.0 if self.fresh else float(self.outputs.get("seconds", 0.0))


class Engine(ABC):
    """Runs steps of one workspace, in order, and keeps what they told."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.results: dict[str, StepResult] = {}

    def run(self, step: str) -> StepResult:
        """Run one step and log what came out. Raises UserError where the step refuses its input."""
        result = self._run(step)
        self.results[step] = result
        log.info("%-8s  %s", step, "up to date" if result.fresh else describe(step, result.outputs))
        for note in () if result.fresh else result.outputs.get("notes", ()):
            log.info("%-8s  - %s", "", note)
        return result

    @abstractmethod
    def _run(self, step: str) -> StepResult: ...


class InProcess(Engine):
    """Outside a DVC project: steps are called right here, features come from the store."""

    def __init__(self, workspace: Workspace, config: RunConfig, registry: Callable[[], Registry]) -> None:
        super().__init__(workspace)
        self.config = config
        self.registry = registry

    def _run(self, step: str) -> StepResult:
        from tl_flows.steps import run_step

        return StepResult(step, False, run_step(step, self.config, self.registry(), self.workspace))


class Stages(Engine):
    """In a DVC project: DVC says whether a step is stale, and runs it in a process that can be ended.

    A stage is never called in this process: a time-out or a kill would leave it running beside its own rerun.
    """

    def __init__(self, workspace: Workspace, data: Path, deadline_s: float) -> None:
        super().__init__(workspace)
        self.root = workspace.root
        self.data = data
        self.deadline_s = deadline_s

    def _run(self, step: str) -> StepResult:
        if step == "version":
            self.record_data()
        reasons = versioning.stale_stages(self.root, [step])
        if reasons:
            stage_log.info("%s is stale: %s", step, "; ".join(reasons[step]))
            # what another run told must not be taken for this one where DVC finds the outputs in its run cache
            self.workspace.run_file(step).unlink(missing_ok=True)
            run_dvc(self.root, ["repro", "--single-item", step], _tell, self.deadline_s)
        return self.result(step, fresh=not reasons)

    def result(self, step: str, *, fresh: bool) -> StepResult:
        """What the step's last run here told."""
        path = self.workspace.run_file(step)
        return StepResult(step, fresh, json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})

    def up_to_date(self) -> bool:
        """True where the data are recorded and no stage has anything to do."""
        found = versioning.tracked(self.root, self.data)
        recorded = found is None or found.state == "recorded"
        return recorded and not versioning.stale_stages(self.root, STEPS)

    def record_data(self) -> None:
        """Fetch tracked data that are not here; record a new version of tracked data that differ.

        Raises UserError where the data are neither here nor in the remote.
        """
        found = versioning.tracked(self.root, self.data)
        if found is None or found.state == "recorded":
            return
        if found.state == "modified":
            run_dvc(self.root, found.record, stage_log.info, self.deadline_s)
            return
        log.info("the data are missing: fetching them (dvc %s)", " ".join(found.fetch))
        try:
            run_dvc(self.root, found.fetch, stage_log.info, self.deadline_s)
        except StageError as error:
            raise UserError(
                f"the data of {found.file} are missing and can't be fetched: {error}; "
                f"put them back, or name their remote: dvc remote add -d NAME URL"
            ) from error


def _tell(line: str) -> None:
    """A stage's line: shown at once where it is meant for people, else kept in the run's history."""
    if line.startswith(NOTE):
        log.info("%s", line.removeprefix(NOTE))
    else:
        stage_log.info("%s", line)


def open_engine(folder: Path, config: Mapping[str, Any] | None, step_hours: float) -> Engine:
    """The engine of an output folder where a config is given, else of the DVC project that `folder` lies in."""
    if config is None:
        return open_project(require_project(folder), {}, step_hours)
    from tl_core.registry import load_registry

    checked = validate(config)
    return InProcess(outside_workspace(folder, checked), checked, load_registry)


def open_project(root: Path, edits: Mapping[str, Any], step_hours: float = 24.0) -> Stages:
    """The engine of a project, after setting `edits` in its params.yaml.

    Raises UserError on invalid ones, and where the project can't be written.
    """
    writable(root / ".tl", "the project's folder", "work in a copy of the project that can be written")
    config = edit_params(root / PARAMS, edits)
    if (root / CODE_VERSION).is_file():
        write_code_version(root / CODE_VERSION)  # so that another version of tl or of a plugin makes stages stale
    data = root / Path(config.data.path).expanduser()
    return Stages(project_workspace(root, config), data, deadline_s=step_hours * 3600)
