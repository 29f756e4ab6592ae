"""One modality's numbers: the probe on every set, and few labels on the sample."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.starters.data import SETS, DataSet, real_set, sample
from benchmarks.starters.few_labels import (
    BUDGETS,
    PER_CLASS,
    Budget,
    Trained,
    batch_norms,
    draw,
    probe_side,
    trained_side,
)
from benchmarks.starters.probing import probe
from benchmarks.starters.resampling import Comparison, Resamples
from tl_core.config import RunConfig
from tl_core.errors import UserError
from tl_core.evaluation import Interval
from tl_core.registry import Registry
from tl_core.store import FeatureStore
from tl_core.types import BackboneSpec

STARTERS = {"image": "starter-image", "audio": "starter-audio", "text": "all-minilm-l6-v2"}

REAL = {
    "image": ("mobilenet_v1_025_224_imagenet", "mobilenetv2_100_imagenet"),
    "audio": ("yamnet_audioset",),
    "text": (),
}
"""Folders of real pretrained weights, for an honest sense of scale."""


@dataclass(frozen=True)
class Setup:
    """data: folder of real sets and weights; cache: where features and trainings are remembered; seeds: random
    initialisations; quick: a small part of everything, to see that it runs."""

    data: Path
    cache: Path
    seeds: int = 5
    quick: bool = False


def measure(modality: str, backbone: str, registry: Registry, setup: Setup) -> dict[str, Any]:
    """The numbers of a modality as JSON-able values. Raises UserError where the backbone can't be built."""
    spec = registry.backbone(backbone, modality)
    identity = spec.build().identity
    store, config = FeatureStore(setup.cache / "store"), RunConfig()
    own = sample(modality, registry, setup.cache)
    sets = {"the sample": own}
    weights: dict[str, Path] = {}
    if not setup.quick:
        sets |= {name: real_set(name, setup.data, registry, setup.cache) for name in SETS[modality]}
        weights = {name: setup.data / "weights" / name for name in REAL[modality]}
    real = {name: registry.backbone(str(path), modality) for name, path in weights.items() if path.is_dir()}
    there = [found for found in sets.values() if found is not None]
    if not there:
        raise UserError(
            f"no data to measure {backbone} on: no sample (`dvc pull data.dvc`), and no sets in {setup.data}"
        )
    few = None if own is None else few_labels(own, spec, _budget(modality, setup), registry, store, setup.cache)
    return {
        "backbone": backbone,
        "weights": identity.weights,
        "fingerprint": identity.fingerprint,
        "seeds": setup.seeds,
        "probe": [_probe_row(found, spec, real, setup.seeds, registry, store, config) for found in there],
        "few_labels": few,
        "absent": [name for name, found in sets.items() if found is None] + [n for n in weights if n not in real],
    }


def few_labels(
    data: DataSet, spec: BackboneSpec, budget: Budget, registry: Registry, store: FeatureStore, cache: Path
) -> dict[str, Any]:
    """Probe and fine-tuning against training from scratch on the same few items."""
    _say(f"{spec.name}: few labels on {data.name}")
    manifest = data.folds[0]
    draws = [draw(manifest, seed) for seed in range(budget.draws)]
    resamples = Resamples(len(manifest.rows("test")), data.test_groups)
    scratch = trained_side(draws, spec, budget, True, registry, cache)
    tuned = trained_side(draws, spec, budget, False, registry, cache)
    backbone = spec.build()
    probed = probe_side(draws, backbone, registry, store)
    return {
        "data": data.name,
        "per_class": PER_CLASS,
        "train_rows": len(draws[0].rows("train")),
        "val_rows": len(draws[0].rows("val")),
        "test_rows": len(manifest.rows("test")),
        "unit": resamples.unit,
        "budget": asdict(budget),
        "batch_norms": len(batch_norms(backbone)) > 0,
        "methods": [
            {"name": "probe", **_compared(resamples.compare(probed, _right(scratch)))},
            {"name": "finetune", **_compared(resamples.compare(_right(tuned), _right(scratch))), **_spent(tuned)},
            {"name": "scratch", "ours": _numbers(resamples.interval(_right(scratch))), **_spent(scratch)},
        ],
    }


def _budget(modality: str, setup: Setup) -> Budget:
    full = BUDGETS[modality]
    return Budget(2, full.rates[:2], 2, 1, full.batch_size) if setup.quick else full


def _probe_row(
    data: DataSet,
    spec: BackboneSpec,
    real: dict[str, BackboneSpec],
    seeds: int,
    registry: Registry,
    store: FeatureStore,
    config: RunConfig,
) -> dict[str, Any]:
    _say(f"{spec.name}: probe on {data.name}")
    resamples = Resamples(sum(len(fold.rows("test")) for fold in data.folds), data.test_groups)

    def right(backbone: BackboneSpec, seed: int | None = None) -> np.ndarray:
        return probe(data, backbone.build(seed), registry, store, config)

    random = np.stack([right(spec, seed) for seed in range(seeds)])
    return {
        "data": data.name,
        "classes": len(data.folds[0].targets.classes),
        "folds": len(data.folds),
        "test_rows": random.shape[1],
        "unit": resamples.unit,
        **_compared(resamples.compare(right(spec)[None], random)),
        "random_runs": [round(float(run.mean()), 6) for run in random],
        "real": {name: _numbers(resamples.interval(right(other)[None])) for name, other in real.items()},
    }


def _right(side: Sequence[Trained]) -> np.ndarray:
    return np.array([training.right for training in side], bool)


def _spent(side: Sequence[Trained]) -> dict[str, Any]:
    """What a training of this side took: steps, CPU seconds, the rate chosen, the last epoch's training loss."""
    return {
        "rate": side[0].rate,
        "steps": side[0].steps,
        "cpu_seconds": round(float(np.mean([training.seconds for training in side])), 1),
        "last_loss": round(float(np.mean([training.loss for training in side])), 4),
    }


def _compared(comparison: Comparison) -> dict[str, Any]:
    return {
        "ours": _numbers(comparison.ours),
        "theirs": _numbers(comparison.theirs),
        "difference": _numbers(comparison.difference),
        "verdict": comparison.verdict,
    }


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _numbers(interval: Interval) -> list[float]:
    return [interval.value, interval.low, interval.high]
