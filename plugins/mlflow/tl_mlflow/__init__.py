"""MLflow for tl: evaluated models as runs, registered ones as versions, where MLFLOW_TRACKING_URI says.

It is told and never asked: nothing of tl goes by what MLflow holds.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from tl_core import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

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
    from tl_mlflow.revision import project_folder
    from tl_mlflow.server import send

    record = record_of(workspace, outputs)
    log.info("%-8s  %s", "mlflow", send(record, uri, _experiment(), project_folder(workspace.root)))


@hookimpl
def tl_registry_changed(registry: dict[str, Any], project: Path) -> str | None:
    """Bring MLflow's registered model up to date. Raises TrackingError where that fails."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return None
    from tl_mlflow.model import model_of
    from tl_mlflow.server import mirror

    if not registry["versions"]:
        return f"{'mlflow':<8}  nothing is registered yet"
    return f"{'mlflow':<8}  {mirror(model_of(registry), uri, _experiment(), project)}"


def _experiment() -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
