"""The push at the end of a retrain: whatever becomes of it, what was decided and promoted stands."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from tl_core.errors import UserError
from tl_flows.prefect_env import LOGGER
from tl_flows.retraining.outcome import Outcome
from tl_flows.sharing import push
from tl_flows.stage_process import StageError

log = logging.getLogger(LOGGER)

REMEDY = "the next retrain tries again, and so does `tl registry push`"
ELSEWHERE = "neither DVC's cache nor its remote has it: `tl registry push` on the machine that trained it"


def pushed(main: Path, outcome: Outcome) -> Outcome:
    """Push what others lack. The outcome's reason says what could not be pushed; its state stays as it is."""
    try:
        done = push(main)
    except (UserError, StageError) as error:
        return _but(outcome, str(error))
    except Exception as error:
        log.exception("the push failed unexpectedly")
        return _but(outcome, f"unexpected {type(error).__name__}: {error}")
    log.info("push      %s", done.describe())
    kept = "; ".join(f"{version} lacks {what}" for version, what in done.kept_back.items())
    return _but(outcome, kept, ELSEWHERE) if kept else outcome


def _but(outcome: Outcome, fault: str, remedy: str = REMEDY) -> Outcome:
    return dataclasses.replace(outcome, reason=f"{outcome.reason} Not pushed: {fault} ({remedy})")
