"""One step in this process: tl_core's function, what DVC knows of the data, and the watchers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import tl_core.steps
from tl_core.config import RunConfig
from tl_core.registry import Registry
from tl_core.workspace import Workspace, write_json
from tl_flows.prefect_env import LOGGER
from tl_flows.versioning import changes, recorded_digests

log = logging.getLogger(LOGGER)


def run_step(step: str, config: RunConfig, registry: Registry, workspace: Workspace) -> dict[str, Any]:
    """Run a step over the workspace's files and tell the watchers; a watcher that fails is logged, no more."""
    outputs: dict[str, Any] = getattr(tl_core.steps, step)(config, registry, workspace)
    _tell(step, outputs, registry, workspace)
    return outputs


def run_project_step(step: str, config: RunConfig, registry: Registry, workspace: Workspace) -> dict[str, Any]:
    """The same in a DVC project, where `version` takes DVC's digests and says what changed in the files."""
    if step == "tune":
        from tl_flows.retraining.warm_start import fetch_start

        fetch_start(workspace.root, config)
    if step != "version":
        return run_step(step, config, registry, workspace)
    data = workspace.root / Path(config.data.path).expanduser()
    changed = changes(workspace.root, data, step)
    digests = recorded_digests(workspace.root, data) if changed else None
    outputs = tl_core.steps.version(config, registry, workspace, digests=digests)
    if changed:
        outputs["files"] = changed.describe()
        write_json(workspace.run_file(step), outputs)
    _tell(step, outputs, registry, workspace)
    return outputs


def _tell(step: str, outputs: dict[str, Any], registry: Registry, workspace: Workspace) -> None:
    for failure in registry.finished(step, outputs, workspace):
        log.warning(failure)
