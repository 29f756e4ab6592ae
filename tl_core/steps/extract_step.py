"""extract: the features of every usable row, from the chosen backbone and from its random twin."""

from __future__ import annotations

from typing import Any

from tl_core.config import RunConfig
from tl_core.extraction import END, fill
from tl_core.manifest import Manifest
from tl_core.pins import Pins, check_weights
from tl_core.registry import Registry
from tl_core.steps.backbone import Lazy, chosen
from tl_core.steps.record import recorded
from tl_core.store import FeatureStore
from tl_core.workspace import Workspace, write_json

FORMAT_VERSION = 1


def extract(config: RunConfig, registry: Registry, workspace: Workspace) -> dict[str, Any]:
    """Fill the store and leave a receipt in artifacts/extract; the features themselves stay in the store.

    The random twin (same network, random weights from the run's seed, same precision) is what the floor
    `floor_random_init` is measured with.
    """
    with recorded(workspace, "extract") as results:
        manifest = Manifest.load(workspace.manifest, workspace.root)
        loader, store = registry.loader(manifest.modality), FeatureStore(workspace.store)
        request, spec = chosen(registry, workspace, manifest.modality)
        settings, rows = config.extract, manifest.rows()
        receipt: dict[str, Any] = {"format": FORMAT_VERSION, "data_version": manifest.data_version, "rows": len(rows)}
        precision: str = settings.precision
        for role, seed in (("backbone", None), ("random", config.seed)):
            lazy = Lazy(spec, seed)
            facts = lazy.facts(request, workspace.cache)
            if seed is None:
                check_weights(request, facts, Pins.at(workspace.root), workspace.root)
            done = fill(
                manifest, rows, loader, facts["fingerprint"], lazy, store,
                device=settings.device, precision=precision, engine=settings.engine,
                label=f"extract {spec.name}" + ("" if seed is None else ", random weights"),
            )  # fmt: skip
            precision = done.precision  # the twin's as well
            receipt[role] = facts | {"cut": END}
            results[role] = {"computed": done.computed, "reused": done.reused, "seconds": round(done.seconds, 3)}
            if seed is None:
                receipt.update(precision=precision, truncated=done.truncated)
                results.update(
                    computed=done.computed,
                    reused=done.reused,
                    truncated=done.truncated,
                    audited=done.audited,
                    engine=done.engine,
                    header=done.header,
                    engine_note=done.note,
                    precision=precision,
                )
        write_json(workspace.receipt, receipt)
    return results
