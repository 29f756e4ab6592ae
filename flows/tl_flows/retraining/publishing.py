"""The report of a night's model and the decision on it, where people look for them: outside of the worktree."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tl_core.workspace import Workspace, write_json, write_text
from tl_flows.prefect_env import LOGGER
from tl_flows.registry_state import Version
from tl_flows.retraining.attempt import FOLDER
from tl_flows.retraining.decision_file import PAGE, Concluded, write_decision
from tl_flows.runs import render_timed
from tl_flows.version_facts import REPORT
from tl_flows.versioning import outputs_at

if TYPE_CHECKING:
    from tl_core.gate import Decision
    from tl_core.report.contest import Contest
    from tl_flows.retraining.outcome import Outcome

log = logging.getLogger(LOGGER)

REPORTS = FOLDER / "reports"
REPORT_PAGE, DECISION = "report.html", "decision.json"


def publish(main: Path, version: Version, decision: Decision, workspace: Workspace) -> Path:
    """Write the report of the version that a workspace has just made, and the decision; the folder of both."""
    folder = main / REPORTS / version.name
    render_timed(workspace, folder / REPORT_PAGE)
    write_json(folder / DECISION, decision.as_json())
    return folder


def publish_missing(
    main: Path, version: Version, champion: Version | None, outcome: Outcome, contest: Contest | None
) -> Path:
    """Publish what a retrain did not come to publish of its version; the folder of all. What is there, stays.

    champion: that which it was held against; contest: None where it was not kept, and there is no page then. Whatever
    goes wrong is logged: the decision has been carried out, and stands.
    """
    folder = main / REPORTS / version.name
    if not (folder / REPORT_PAGE).is_file():
        with _logged(f"the report of {version.name}"):
            _render(main, version.commit, folder / REPORT_PAGE)
    if outcome.decision is not None and not (folder / DECISION).is_file():
        with _logged(f"the decision on {version.name}"):
            write_json(folder / DECISION, outcome.decision)
    if not (folder / PAGE).is_file():
        if contest is None:
            log.warning(
                "the page of the decision on %s can't be made: what its retrain saw was not kept whole", version.name
            )
        else:
            write_decision(main, folder, Concluded(contest, version, champion, outcome))
    return folder


def _render(main: Path, commit: str, target: Path) -> None:
    """Write the report of a commit's run, without the seconds of its steps, which no commit holds."""
    from tl_core.report import ReportFacts, render_report

    with TemporaryDirectory(prefix="tl-report-") as scratch:
        outputs_at(main, commit, [REPORT], Path(scratch))
        write_text(target, render_report(ReportFacts.load(Path(scratch) / REPORT)))


@contextmanager
def _logged(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        log.warning("%s could not be written: %s: %s", what, type(error).__name__, error)
