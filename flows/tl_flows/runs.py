"""Whole runs: what `tl run` and `tl_flows.run` do around the flow."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_core.config import RunConfig, apply_override, validate
from tl_core.errors import UserError
from tl_core.names import split_view
from tl_core.workspace import STEPS, Workspace, write_text
from tl_flows import versioning
from tl_flows.engine import StepResult, open_project
from tl_flows.flow_session import FlowSession
from tl_flows.prefect_env import LOGGER
from tl_flows.project import cache_folder, main_worktree, outside_workspace, sole_run

if TYPE_CHECKING:
    from tl_core.bundle import ModelBundle
    from tl_core.report import RunSummary

log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class Run:
    """A finished run: its steps, its metrics by name, and where its report, the report's facts and the model lie."""

    steps: Mapping[str, StepResult]
    metrics: Mapping[str, float]
    report: Path
    facts: Path
    model_folder: Path

    @property
    def seconds(self) -> float:
        """Seconds that the steps took in this run, 0 where all were up to date."""
        return sum(step.seconds for step in self.steps.values())

    def summary(self) -> RunSummary:
        """The result in a few numbers and words, its verdict and what that means among them."""
        from tl_core.report import RunSummary

        return RunSummary.load(self.facts)

    def model(self) -> ModelBundle:
        """The trained model, ready to predict from raw sources."""
        from tl_core.bundle import ModelBundle
        from tl_core.registry import load_registry

        return ModelBundle.load(self.model_folder, load_registry())


def run(
    data: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] = "tl-run",
    modality: str | None = None,
    backbones: Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Learn from a folder or table of samples, outside of any project: what `tl run --data` does.

    backbones: names, hub ids or folders; none: the modality's defaults. settings: config values by dotted key
    (`{"tune.strategy": "finetune"}`). Raises UserError on data or settings that can't be used.
    """
    return run_outside(outside_config(Path(data), modality, backbones, settings or {}), Path(out))


def outside_config(
    data: Path, modality: str | None, backbones: Iterable[str], settings: Mapping[str, Any]
) -> RunConfig:
    """The config of a run outside of any project: defaults, settings, then what has an option of its own.

    Raises UserError on invalid settings and where the data are not there.
    """
    values: dict[str, Any] = {}
    for key, value in {**settings, **option_edits(modality, backbones)}.items():
        apply_override(values, key, value)
    path = data.expanduser().resolve()
    apply_override(values, "data.path", str(path))
    config = validate(values)
    if not path.exists():
        raise UserError(f"no such data: {data}; give a folder of samples or a table (CSV, TSV, JSONL, Parquet)")
    return config


def option_edits(modality: str | None, backbones: Iterable[str], root: Path | None = None) -> dict[str, Any]:
    """What --modality and --backbone set, by config key.

    Paths from here become relative to the project `root` where they lie inside it, absolute otherwise.
    """
    edits: dict[str, Any] = {}
    if modality is not None:
        edits["modality"] = modality
    names = [_located(name, root) for name in backbones]
    if names:
        edits["select.backbones"] = names
    return edits


def run_outside(config: RunConfig, out: Path) -> Run:
    """The whole pipeline into `out`, features in the user's cache. Raises UserError where `out` can't be used."""
    with sole_run(out):
        workspace = outside_workspace(out, config)
        steps = FlowSession(cache_folder() / "prefect").call(workspace.root, config.model_dump(mode="json"))
        publish(workspace)
        return _finished(steps, workspace, workspace.root / "report.html", workspace.root / "model")


def run_project(root: Path, edits: Mapping[str, Any], session: FlowSession | None = None) -> Run:
    """The whole pipeline of a DVC project, after setting `edits` in its params.yaml.

    Where every stage is up to date and no Prefect server runs, no server is started for a flow of five no-ops.
    session: of a command that runs several projects; its own where not given. Raises UserError where the data are an
    earlier version that git has left behind.
    """
    engine = open_project(root, edits)
    session = session or project_session(root)
    if session.temporary and engine.up_to_date():
        log.info("every stage is up to date; no Prefect server runs, so this is not recorded as a flow run")
        steps: Mapping[str, StepResult] = {step: engine.result(step, fresh=True) for step in STEPS}
    else:
        if told := versioning.left_behind(root, engine.data):
            raise UserError(told)
        steps = session.call(root)
    workspace = engine.workspace
    return _finished(steps, workspace, workspace.state / "report.html", workspace.model)


def project_session(root: Path) -> FlowSession:
    """A session whose temporary server keeps its runs in the project, of linked worktrees in the main one."""
    return FlowSession(main_worktree(root) / ".prefect")


def publish(workspace: Workspace) -> None:
    """Put what users look for at the top of the output folder, as links to the steps' files where possible."""
    evaluated = workspace.step("evaluate")
    told = workspace.metrics, workspace.ranking, workspace.tuning, workspace.quarantine
    for path in (*told, evaluated / "predictions.parquet", evaluated / "model_card.md"):
        _link(path, workspace.root / path.name)
    model = workspace.root / "model"
    shutil.rmtree(model, ignore_errors=True)
    model.mkdir()
    for path in sorted(workspace.model.iterdir()):
        _link(path, model / path.name)


def render_timed(workspace: Workspace, target: Path) -> Path:
    """Write the report with the seconds of each step; the step's own output has none, to be the same every time.

    Raises UserError where nothing has been evaluated.
    """
    facts = _facts(workspace)
    if not facts.is_file():
        raise UserError(f"no report in {workspace.root}: {facts} is missing; `tl run` makes one")
    from tl_core.report import ReportFacts, render_report

    files = {step: workspace.run_file(step) for step in STEPS}
    told = {step: _read(path) for step, path in files.items() if path.is_file()}
    seconds = {step: float(run["seconds"]) for step, run in told.items()}
    cpu = {step: float(run["cpu_seconds"]) for step, run in told.items() if "cpu_seconds" in run}
    write_text(target, render_report(dataclasses.replace(ReportFacts.load(facts), run=seconds, cpu=cpu)))
    return target


def _finished(steps: Mapping[str, StepResult], workspace: Workspace, report: Path, model: Path) -> Run:
    if not (report.is_file() and all(step.fresh for step in steps.values())):
        render_timed(workspace, report)
    return Run(steps, _read(workspace.metrics), report, _facts(workspace), model)


def _facts(workspace: Workspace) -> Path:
    return workspace.step("evaluate") / "report.json"


def _read(path: Path) -> dict[str, Any]:
    """A small file of a step; tl_core's reader would cost the seconds that torch takes to import."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _located(name: str, root: Path | None) -> str:
    name, view = split_view(name)
    return f"{_located_whole(name, root)}#{view}" if view else _located_whole(name, root)


def _located_whole(name: str, root: Path | None) -> str:
    architecture, at, weights = name.rpartition("@")
    path = Path(weights).expanduser()
    if "/" not in weights or not path.exists():  # a bare word is a name first: the registry decides
        return name
    path = path.resolve()
    inside = root is not None and path.is_relative_to(root)
    return f"{architecture}{at}{path.relative_to(root).as_posix() if root and inside else path}"


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
