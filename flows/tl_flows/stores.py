"""Which feature store a command means, what its backbones are called, and which rows a run needs of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tl_core.config import RunConfig, load_config
from tl_core.errors import UserError
from tl_core.manifest import Manifest
from tl_core.store import FORMAT_VERSION, FeatureStore, Space
from tl_core.weights import read_json
from tl_core.workspace import Workspace
from tl_flows.project import PARAMS, find_project, outside_workspace, project_workspace

ROLES = ("backbone", "random")  # in a receipt: the chosen backbone, and the same network with random weights


def workspace_at(out: Path | None, usual: str) -> Workspace:
    """Of the run folder `out` where it is given, else of the project here, else of a run in the usual folder."""
    root = find_project(Path.cwd()) if out is None else None
    return outside_workspace(out or Path(usual), RunConfig()) if root is None else workspace_of(root)


def workspace_of(root: Path) -> Workspace:
    """Of the project that has its root there, else of a run in that folder."""
    if find_project(root) != root:
        return outside_workspace(root, RunConfig())
    return project_workspace(root, load_config(root / PARAMS) if (root / PARAMS).is_file() else RunConfig())


def open_store(named: Path | None, workspace: Workspace, *, new: bool = False) -> FeatureStore:
    """The store that the user names, else the workspace's. Raises UserError where it has to be there and is not."""
    if named is not None and not new and not named.is_dir():
        raise UserError(f"no such feature store: {named}; `tl cache info` without --store says where the usual one is")
    if named is not None and named.exists() and not named.is_dir():
        raise UserError(f"the feature store {named} is a file; name a folder")
    store = FeatureStore(workspace.store if named is None else named.resolve())
    if named is not None and not new and not store.exists():
        raise UserError(f"{named} is no feature store; `tl cache info` without --store says where the usual one is")
    return store


def backbone_names(workspace: Workspace) -> dict[str, str]:
    """Names of backbones by fingerprint, as far as this project (or run) and its cache have met them."""
    from tl_core.steps.known import KnownBackbones

    known = KnownBackbones(workspace.cache)
    try:
        facts = known.all()
    finally:
        known.close()
    for path in (workspace.ranking, workspace.receipt):
        with suppress(OSError, ValueError):
            facts += _in_artifact(json.loads(path.read_text(encoding="utf-8")))
    return {str(one["fingerprint"]): _called(one) for one in facts if one.get("fingerprint")}


def rows_of_run(workspace: Workspace) -> list[tuple[Space, list[str]]]:
    """(space, digests) that the run's model is trained and measured on. Raises UserError where nothing is extracted."""
    if not workspace.receipt.is_file():
        raise UserError(
            f"no features of a run here: {workspace.receipt} is missing; `tl run` makes them, --out FOLDER names "
            "another run's folder, --all takes the whole store"
        )
    manifest, receipt = Manifest.load(workspace.manifest, workspace.root), read_json(workspace.receipt)
    if receipt["data_version"] != manifest.data_version:
        raise UserError(f"{workspace.receipt} is of another version of the data; run `tl extract` (or `tl run`) first")
    digests = manifest.digests(manifest.rows())
    return [(Space(receipt[r]["fingerprint"], receipt[r]["cut"], receipt["precision"]), digests) for r in ROLES]


def whole_store(features: FeatureStore) -> list[tuple[Space, None]]:
    """All spaces of the store that this tl reads, with all of their rows."""
    return [(one.space, None) for one in features.info() if one.format_version == FORMAT_VERSION]


def _in_artifact(values: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The backbones in a ranking or a receipt."""
    return [*values.get("candidates", ()), *(values[role] for role in ROLES if role in values)]


def _called(facts: dict[str, Any]) -> str:
    twin = str(facts.get("weights", "")).startswith("random-")
    return f"{facts['name']}, random weights" if twin else str(facts["name"])
