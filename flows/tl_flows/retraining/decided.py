"""A decision before others see it: kept whole, so that a kill on the way to its page loses nothing of it."""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tl_core.errors import UserError
from tl_core.workspace import write_json
from tl_flows.prefect_env import LOGGER
from tl_flows.retraining.attempt import FOLDER

if TYPE_CHECKING:
    from tl_core.report.contest import Contest

FILE = FOLDER / "decided.json"
FORMAT_VERSION = 1

log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class Decided:
    """A decision with all that its page and its outcome say besides.

    why: the origin of the version that it is on; incoming: what came in, in words; quarantined: samples.
    """

    why: str
    contest: Contest
    incoming: str = ""
    quarantined: int = 0

    def keep(self, main: Path) -> Decided:
        """Write it beside the record of the attempt, in place of the one before. A fault is only logged."""
        try:
            facts = {
                "format": FORMAT_VERSION, "why": self.why, "contest": self.contest.as_json(), "incoming": self.incoming,
                "quarantined": self.quarantined,
            }  # fmt: skip
            write_json(main / FILE, facts)
        except Exception:
            log.warning("the decision can't be kept for the page that a kill may leave unmade", exc_info=True)
        return self

    @classmethod
    def load(cls, main: Path, why: str) -> Decided | None:
        """The kept decision of an origin; None where another one is kept, or none that can be read."""
        from tl_core.report.contest import Contest

        try:
            facts = json.loads((main / FILE).read_text(encoding="utf-8"))
            if facts["format"] != FORMAT_VERSION or facts["why"] != why:
                return None
            contest = Contest.from_json(facts["contest"])
            return cls(why, contest, str(facts["incoming"]), int(facts["quarantined"]))
        except (OSError, UserError, ValueError, KeyError, TypeError, AttributeError):
            return None  # the version's commit has the decision itself


def forget(main: Path) -> None:
    """Delete the kept decision: it has been told."""
    with contextlib.suppress(OSError):  # the next decision takes its place
        (main / FILE).unlink()
