"""version: the data as a manifest, with bad samples named and what changed since last time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_core.config import RunConfig
from tl_core.errors import FormatError, UserError
from tl_core.manifest import Manifest, compare, scan
from tl_core.registry import Registry
from tl_core.steps.record import recorded
from tl_core.workspace import Workspace, write_json


def version(
    config: RunConfig, registry: Registry, workspace: Workspace, *, digests: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Scan the data into artifacts/version: manifest.parquet, quarantine.csv and data.json.

    digests: md5s of files that are known already (from DVC), by path relative to the data's folder.
    Raises UserError where the data can't be used; quarantine.csv is written before the run stops for bad samples.
    """
    with recorded(workspace, "version") as results:
        path = Path(config.data.path).expanduser()
        path = path if path.is_absolute() else workspace.root / path
        manifest = scan(path, config, registry.loaders(), base=workspace.root, cache=workspace.cache, digests=digests)
        workspace.step("version").mkdir(parents=True, exist_ok=True)
        manifest.write_quarantine(workspace.quarantine)
        try:
            manifest.require_usable(config.data.max_bad)
        except UserError as error:
            raise UserError(f"{error}\nall of them, with reasons: {workspace.quarantine}") from error
        manifest.save(workspace.manifest)
        facts = {
            "modality": manifest.modality,
            "task": manifest.targets.task,
            "classes": list(manifest.targets.classes),
            "data_version": manifest.data_version,
            "rows": len(manifest),
            "quarantined": len(manifest) - len(manifest.rows()),
            "counts": manifest.counts(),
            "notes": list(manifest.notes),
        }
        write_json(workspace.step("version") / "data.json", facts)
        changes = compare(_previous(workspace), manifest)
        manifest.save(workspace.state / "manifest.parquet")
        results.update({k: v for k, v in facts.items() if k != "counts"}, changes=dataclasses.asdict(changes))
        results["splits"] = {split: len(manifest.rows(split)) for split in ("train", "val", "test")}
    return results


def _previous(workspace: Workspace) -> Manifest | None:
    """The manifest of the last version step here; kept beside the outputs, because DVC deletes those first."""
    path = workspace.state / "manifest.parquet"
    try:
        return Manifest.load(path, workspace.root) if path.is_file() else None
    except FormatError:
        return None
