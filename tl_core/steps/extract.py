"""extract: the features of every usable row, from the chosen backbone and from its random twin."""

from __future__ import annotations

from typing import Any

from tl_core.bundle import backbone_facts
from tl_core.config import RunConfig
from tl_core.extraction import extract as extract_features
from tl_core.extraction import space_of
from tl_core.manifest import Manifest
from tl_core.registry import Registry
from tl_core.steps.backbone import chosen
from tl_core.steps.record import recorded
from tl_core.store import FeatureStore
from tl_core.workspace import Workspace, write_json

FORMAT_VERSION = 1


def extract(config: RunConfig, registry: Registry, workspace: Workspace) -> dict[str, Any]:
    """Fill the store and leave a receipt in artifacts/extract; the features themselves stay in the store.

    The random twin (same network, random weights from the run's seed) is what the floor `floor_random_init` is
    measured with.
    """
    with recorded(workspace, "extract") as results:
        manifest = Manifest.load(workspace.manifest, workspace.root)
        loader, store = registry.loader(manifest.modality), FeatureStore(workspace.store)
        request, spec = chosen(registry, workspace, manifest.modality)
        settings, rows = config.extract, manifest.rows()
        receipt: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "data_version": manifest.data_version,
            "rows": len(rows),
            "precision": settings.precision,
        }
        for role, seed in (("backbone", None), ("random", config.seed)):
            backbone = spec.build(seed)
            label = f"extract {spec.name}" + ("" if seed is None else ", random weights")
            done = extract_features(
                manifest, rows, loader, backbone, store,
                device=settings.device, precision=settings.precision, label=label,
            )  # fmt: skip
            space = space_of(backbone, settings.precision)
            receipt[role] = backbone_facts(spec, request, backbone) | {"cut": space.cut}
            results[role] = {"computed": done.computed, "reused": done.reused, "seconds": round(done.seconds, 3)}
            if seed is None:
                receipt["truncated"] = done.truncated
                results.update(
                    computed=done.computed,
                    reused=done.reused,
                    truncated=done.truncated,
                    engine=done.engine,
                    precision=done.precision,
                )
        write_json(workspace.receipt, receipt)
    return results
