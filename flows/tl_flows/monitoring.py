"""Incoming samples held against a bundle's reference: listed, checked, their features stored, compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tl_core.bundle import ModelBundle
from tl_core.diagnostics.drift import drift
from tl_core.errors import UserError
from tl_core.extraction import features as read_features
from tl_core.extraction import fill, space_of
from tl_core.manifest import Manifest
from tl_core.manifest.checks import examine
from tl_core.manifest.listing import Listing
from tl_core.manifest.modality import kinds
from tl_core.manifest.table import SCHEMA
from tl_core.registry import Registry
from tl_core.store import FeatureStore
from tl_core.types import SPLITS
from tl_core.workspace import Workspace
from tl_flows.incoming_rows import list_incoming

if TYPE_CHECKING:
    from tl_core.diagnostics.drift_result import Drift


@dataclass(frozen=True, eq=False)
class Watched:
    """drift: what the comparison found; manifest: of all incoming samples, with reasons where one is unusable;
    computed: features that the store did not have yet."""

    drift: Drift
    manifest: Manifest
    computed: int

    @property
    def unusable(self) -> list[dict[str, str]]:
        """The samples that could not be read, each with its id and reason."""
        return [{"id": row["id"], "reason": row["reason"]} for row in self.manifest.quarantined()]


def watch(
    model: ModelBundle,
    data: Path,
    registry: Registry,
    workspace: Workspace,
    *,
    column: str | None = None,
    group: str | None = None,
    alarm_rate: float = 0.05,
) -> Watched:
    """Compare the samples of a folder or table with what the model's bundle keeps of its training.

    Features come from the workspace's feature store, which keeps those that are computed now. Raises UserError where
    the bundle keeps no reference, nothing in the data is usable, or a feature is not finite.
    """
    if model.reference is None:
        raise UserError(
            "the model keeps nothing of its training rows to compare new ones with (it was made by an older tl, or its "
            "features are not finite); train it again"
        )
    loaders = registry.loaders()
    named = group or model.reference.group_column
    listing = list_incoming(data, model.loader, loaders, column, named, required=group is not None)
    manifest = _manifest(listing, model, kinds(model.loader, loaders), workspace)
    rows = manifest.rows()
    if len(rows) == 0:
        first = manifest.quarantined()[0]
        raise UserError(f"none of the {len(manifest):,} samples in {data} is usable; {first['id']}: {first['reason']}")
    features, computed = _features(model, manifest, rows, workspace)
    with torch.inference_mode():
        made = model.head.decode(model.head(torch.from_numpy(features)))
    said = made.float().cpu().numpy()
    if not np.isfinite(said).all():
        count = int((~np.isfinite(said.reshape(len(said), -1)).all(axis=1)).sum())
        raise UserError(f"the model gives no finite number for {count:,} of {len(said):,} samples; train it again")
    found = drift(
        model.reference, features, said, model.targets, manifest.ids(rows),
        frozen=not model.facts["trained_segments"], groups=manifest.alike(rows),
        named=manifest.groups(rows) is not None, alarm_rate=alarm_rate,
    )  # fmt: skip
    return Watched(found, manifest, computed)


def _manifest(listing: Listing, model: ModelBundle, read: frozenset[str], workspace: Workspace) -> Manifest:
    """The incoming samples as a manifest, without labels and splits of their own.

    Its version is that of the model's data: what the store holds for both is collected together (`tl cache gc`).
    """
    import pyarrow as pa

    digests, reasons = examine(listing, read, workspace.cache, {}, True)
    count = listing.rows.num_rows
    columns: list[Any] = [
        listing.rows["id"], digests, listing.rows["source"], pa.repeat(pa.scalar(listing.inline), count),
        pa.nulls(count, pa.string()), pa.repeat(pa.scalar(SPLITS[-1]), count), listing.rows["group"],
        pa.array((reasons.get(row) for row in range(count)), pa.string(), size=count),
    ]  # fmt: skip
    return Manifest(
        table=pa.Table.from_arrays(columns, schema=SCHEMA).combine_chunks(),
        modality=model.loader.modality,
        targets=model.targets,
        root="" if listing.inline else str(listing.root.resolve()),
        notes=listing.notes,
        data_version=str(model.facts["training"].get("data_version") or "monitor"),
    )


def _features(model: ModelBundle, manifest: Manifest, rows: np.ndarray, workspace: Workspace) -> tuple[np.ndarray, int]:
    """Embeddings float32 [N, D] in the model's own space, and how many had to be computed."""
    store, backbone = FeatureStore(workspace.store), model.backbone
    precision = str(model.facts["precision"])
    device = str(model.device)
    done = fill(
        manifest, rows, model.loader, backbone.fingerprint, lambda: backbone, store,
        device=device, precision=precision, label="monitor",
    )  # fmt: skip
    space = space_of(backbone, precision)
    return read_features(manifest, rows, model.loader, lambda: backbone, space, store, device=device), done.computed
