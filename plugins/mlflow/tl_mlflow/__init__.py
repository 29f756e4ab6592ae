"""MLflow for tl: each evaluated model becomes a run where MLFLOW_TRACKING_URI says; nothing is read back."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from tl_core import hookimpl

if TYPE_CHECKING:
    from tl_core import Workspace

EXPERIMENT = "tl"  # where MLFLOW_EXPERIMENT_NAME names none

log = logging.getLogger("tl")


@hookimpl
def tl_step_finished(step: str, outputs: dict[str, Any], workspace: Workspace) -> None:
    """Send the run once it is evaluated. Raises TrackingError where that fails."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if step != "evaluate" or not uri:
        return
    from tl_mlflow.record import record_of
    from tl_mlflow.server import send

    record = record_of(workspace, outputs)
    place = send(record, uri, os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
    log.info("%-8s  %s", "mlflow", place)
