"""The page of a night's decision, beside the new model's report."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tl_core.errors import UserError
from tl_core.workspace import write_text
from tl_flows.prefect_env import LOGGER
from tl_flows.registry_state import Version
from tl_flows.retraining.outcome import Outcome
from tl_flows.version_diff import VersionDiff, version_diff

if TYPE_CHECKING:
    from tl_core.report.contest import Contest

log = logging.getLogger(LOGGER)

PAGE = "decision.html"


@dataclass(frozen=True)
class Concluded:
    """A decision that was carried out. version: the new model; champion: the one that it was held against, if any."""

    contest: Contest
    version: Version
    champion: Version | None
    outcome: Outcome


def write_decision(main: Path, folder: Path, concluded: Concluded) -> None:
    """Write a decision's page. Whatever goes wrong is logged: the decision has been carried out, and stands."""
    try:
        _write(main, folder / PAGE, concluded)
    except Exception as error:
        log.warning("the page of the decision could not be written: %s: %s", type(error).__name__, error)


def _write(main: Path, path: Path, concluded: Concluded) -> None:
    from tl_core.report.decision_page import DecisionFacts, render_decision

    outcome, decision = concluded.outcome, concluded.contest.decision
    found = _differences(main, concluded)
    differences = None if found is None else {
        "Data in numbers": found.data, "Configuration": found.config, "Backbone, strategy and libraries": found.made_of,
    }  # fmt: skip
    promoted = outcome.state == "promoted"
    facts = DecisionFacts(
        title=main.name,
        version=concluded.version.name,
        promoted=promoted,
        contest=concluded.contest,
        note=outcome.reason.removeprefix(decision.sentence).strip() if decision.promote and not promoted else "",
        incoming=outcome.data,
        differences=differences,
        code=None if found is None else found.code,
        report="report.html",
    )
    write_text(path, render_decision(facts))


def _differences(main: Path, concluded: Concluded) -> VersionDiff | None:
    """What the new version and the champion differ in; None without a champion or where a report is not at hand."""
    if concluded.champion is None:
        return None
    try:
        return version_diff(main, concluded.champion, concluded.version)
    except UserError as error:
        log.info("the page of the decision does not say what changed: %s", error)
        return None
