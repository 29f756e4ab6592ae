"""Several projects in one command: one Prefect server, a flow run each, and one page over all of them."""

from __future__ import annotations

import logging
import os
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_core.config import load_config
from tl_core.errors import UserError
from tl_core.workspace import write_text
from tl_flows import versioning
from tl_flows.flow_session import FlowSession
from tl_flows.prefect_env import LOGGER
from tl_flows.project import PARAMS, named_projects, writable
from tl_flows.runs import Run, project_session, run_project

if TYPE_CHECKING:
    from tl_core.report import IndexEntry, RunSummary

log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class ProjectRun:
    """One project's part in a run of several. error: why it failed; without one there are a run and its summary."""

    name: str
    root: Path
    run: Run | None = None
    summary: RunSummary | None = None
    error: Exception | None = None


def run_projects(
    projects: Iterable[str | os.PathLike[str]], *, settings: Mapping[str, Any] | None = None
) -> list[ProjectRun]:
    """Run the stale stages of DVC projects, one project after the other: what `tl run PROJECT ...` does.

    One that fails keeps none of the others from running. settings: config values by dotted key, set in each project's
    params.yaml. Raises UserError, before anything runs, where a folder is no project.
    """
    roots = named_projects(projects)
    if not roots:
        return []
    session = project_session(roots[0])
    # asked of all first: recording one's part of the data rewrites the .dvc file by which the others are told
    told = {root: _left_behind(root) for root in roots} if len(roots) > 1 else {}
    return [_run(root, settings or {}, session, told.get(root)) for root in roots]


def write_index(done: Sequence[ProjectRun], path: Path) -> Path:
    """Write the page that links the projects' reports. Raises UserError where its folder can't be written."""
    from tl_core.report import render_index

    writable(path.parent, "the folder of the index page", "call tl in a folder that can be written")
    write_text(path, render_index([_entry(project, path.parent) for project in done]))
    return path


def _left_behind(root: Path) -> str | None:
    try:
        return versioning.left_behind(root, root / Path(load_config(root / PARAMS).data.path).expanduser())
    except UserError:  # its own run tells
        return None


def _run(root: Path, settings: Mapping[str, Any], session: FlowSession, told: str | None) -> ProjectRun:
    name = _name(root)
    log.info("\n== %s", name)
    try:
        if told:
            raise UserError(told)
        run = run_project(root, settings, session)
        summary = run.summary()
    except Exception as error:  # whatever it is, the other projects are not at fault
        log.info("%-8s  %s", "failed", (str(error).splitlines() or [type(error).__name__])[0])
        return ProjectRun(name, root, error=error)
    log.info("%-8s  %s", "meaning", summary.meaning)
    return ProjectRun(name, root, run, summary)


def _entry(project: ProjectRun, page_folder: Path) -> IndexEntry:
    from tl_core.report import IndexEntry

    if project.run is None:
        return IndexEntry(project.name, error=str(project.error))
    return IndexEntry(
        name=project.name,
        summary=project.summary,
        report=_address(project.run.report, page_folder),
        model=os.path.relpath(project.run.model_folder),
        seconds=project.run.seconds,
    )


def _name(root: Path) -> str:
    """The project as one would name it from here; the folder's own name for the one that this is."""
    path = Path(os.path.relpath(root)).as_posix()
    return root.name if path == "." else path


def _address(target: Path, folder: Path) -> str:
    """A relative link, so that the page still works where the whole folder is moved or served."""
    return urllib.parse.quote(Path(os.path.relpath(target, folder)).as_posix())
