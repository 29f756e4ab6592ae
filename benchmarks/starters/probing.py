"""tl's own probe on frozen features, as `tl run` would fit it: which test rows it gets right."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.starters.data import DataSet
from tl_core.config import RunConfig
from tl_core.extraction import extract, features, space_of
from tl_core.manifest import Manifest
from tl_core.registry import Registry
from tl_core.store import FeatureStore
from tl_core.training import fit_probe
from tl_core.types import Backbone


def probe(data: DataSet, backbone: Backbone, registry: Registry, store: FeatureStore, config: RunConfig) -> np.ndarray:
    """Which test rows the probe gets right, bool [N], folds after one another. Features come from the store."""
    found = [probe_fold(fold, backbone, registry, store, config) for fold in data.folds]
    return np.concatenate(found)


def probe_fold(
    manifest: Manifest, backbone: Backbone, registry: Registry, store: FeatureStore, config: RunConfig
) -> np.ndarray:
    """Which of the manifest's test rows are right, bool [N]."""
    loader = registry.loader(manifest.modality)
    settings, rows = config.extract, manifest.rows()
    done = extract(
        manifest, rows, loader, backbone, store,
        device=settings.device, precision=settings.precision, engine=settings.engine,
        label=f"features of {manifest.modality}",
    )  # fmt: skip
    space = space_of(backbone, done.precision)
    x, y = {}, {}
    for split in ("train", "val", "test"):
        part = manifest.rows(split)
        found = features(manifest, part, loader, lambda: backbone, space, store, device=settings.device)
        x[split], y[split] = torch.from_numpy(found), torch.from_numpy(manifest.target_array(part))
    spec = registry.head(manifest.modality, manifest.targets.task, "linear")
    fit = fit_probe(
        x["train"], y["train"], x["val"], y["val"],
        spec.build(backbone.feature_dim, manifest.targets), spec, manifest.targets,
        config.tune.strengths, config.tune.refit,
    )  # fmt: skip
    with torch.no_grad():
        predicted = fit.head.decode(fit.head(x["test"])).argmax(dim=1)
    right: np.ndarray = (predicted == y["test"]).numpy()
    return right
