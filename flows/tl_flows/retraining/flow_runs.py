"""Flow runs whose process was killed: nobody tells the server, so the next retrain does."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from tl_core.errors import UserError
from tl_core.workspace import write_json
from tl_flows.retraining.attempt import FOLDER, sole_retrain

FILE = FOLDER / "flow-runs.json"
FORMAT_VERSION = 1
TOLD = "The process of this retrain was ended from outside. The retrain after it went on from its work."


def put_on_record(project: Path, run: str) -> None:
    """Note the flow run of this process; those noted before whose process is gone without an end are Crashed.

    Whoever calls holds the project's retrain lock. A run stays noted beyond its end: its last state is sent later.
    """
    _write(project, {**_open_runs(project), run: os.getpid()})


def close_dead(project: Path) -> None:
    """Tell the server which runs have crashed, as long as no retrain runs; this frees the place that they held."""
    with suppress(UserError), sole_retrain(project):
        _write(project, _open_runs(project))


def _open_runs(project: Path) -> dict[str, int]:
    return {run: pid for run, pid in _noted(project).items() if _alive(pid) or not _closed(run)}


def _write(project: Path, runs: dict[str, int]) -> None:
    write_json(project / FILE, {"format": FORMAT_VERSION, "runs": runs})


def _noted(project: Path) -> dict[str, int]:
    """The process of each run that may not have ended; none where there is no record, or not one that can be read."""
    try:
        facts = json.loads((project / FILE).read_text(encoding="utf-8"))
        return {str(run): int(pid) for run, pid in facts["runs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _closed(run: str) -> bool:
    """Whether the server knows the run's end, or nothing of the run; it is told the end where it lacks it."""
    with suppress(Exception):  # a server that is away for a moment is told the next time
        with get_client(sync_client=True) as client:
            try:
                state = client.read_flow_run(run).state
            except ObjectNotFound:
                return True
            if state is not None and not state.is_final():
                client.set_flow_run_state(run, Crashed(message=TOLD))
        return True
    return False
