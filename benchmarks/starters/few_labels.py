"""Ten labels per class: transfer against the same network trained from random weights at the same budget."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.starters.probing import probe_fold
from tl_core.config import RunConfig, validate
from tl_core.extraction import resolve_device
from tl_core.manifest import Manifest
from tl_core.manifest.table import version_of
from tl_core.registry import Registry
from tl_core.store import FeatureStore, Space
from tl_core.training import Job, finetune, predict_rows
from tl_core.training.drawing import even_batches
from tl_core.training.norms import measure_norms
from tl_core.training.sources import RawSource
from tl_core.types import Backbone, BackboneSpec
from tl_core.weights import read_json
from tl_core.workspace import write_json

FORMAT_VERSION = 1  # of remembered trainings: raised when the same settings train otherwise
PER_CLASS = 10  # training items of each class; as many validation items choose the rate, the epoch and the strength


@dataclass(frozen=True)
class Budget:
    """What either side may spend: so many epochs in each draw of items, and every rate in the first `tuning_draws`."""

    epochs: int
    rates: tuple[float, ...]
    draws: int = 5
    tuning_draws: int = 3  # on one alone, 80 items to choose by, chance chose among the rates
    batch_size: int = 16
    head_lr: float = 1e-2  # high for a head alone, but it starts at zero and has few steps

    def settings(self, rate: float, seed: int) -> RunConfig:
        """All layers train, no early end: both sides take the same number of steps, and keep their best epoch."""
        tune = {
            "strategy": "finetune", "train_from": "all", "batch_norm": "update",
            "epochs": self.epochs, "patience": self.epochs,
            "batch_size": self.batch_size, "lr": rate, "head_lr": self.head_lr,
            "precision": "float32",
        }  # fmt: skip
        return validate({"seed": seed, "tune": tune})


BUDGETS = {
    "image": Budget(epochs=40, rates=(5e-4, 2e-3, 8e-3)),
    "audio": Budget(epochs=40, rates=(5e-4, 2e-3, 8e-3)),
    "text": Budget(epochs=6, rates=(3e-5, 1e-4, 3e-4), batch_size=8),
}


@dataclass(frozen=True)
class Trained:
    """One training. right: of each test row; val, val_loss: of the best epoch; loss: of the last one on its training
    items; seconds: of CPU time."""

    rate: float
    right: list[bool]
    val: float
    val_loss: float
    loss: float
    steps: int
    seconds: float


def draw(manifest: Manifest, seed: int) -> Manifest:
    """The manifest with ten random training and validation items of each class (or all, where there are fewer), and
    every test row."""
    rng = np.random.default_rng(seed)
    kept = [manifest.rows("test")]
    for split in ("train", "val"):
        rows = rng.permutation(manifest.rows(split))
        targets = manifest.target_array(rows)
        kept += [rows[targets == label][:PER_CLASS] for label in range(len(manifest.targets.classes))]
    table = manifest.table.take(pa.array(np.sort(np.concatenate(kept)))).combine_chunks()
    return replace(manifest, table=table, data_version=version_of(table))


def probe_side(draws: Sequence[Manifest], backbone: Backbone, registry: Registry, store: FeatureStore) -> np.ndarray:
    """Which test rows the probe gets right in each draw, bool [draws, N].

    Not refitted on the validation items: fine-tuning does not train on them either.
    """
    config = validate({"tune": {"refit": False}})
    return np.stack([probe_fold(manifest, backbone, registry, store, config) for manifest in draws])


def trained_side(
    draws: Sequence[Manifest], spec: BackboneSpec, budget: Budget, scratch: bool, registry: Registry, cache: Path
) -> list[Trained]:
    """A training for each draw of items, from the network's own weights or (scratch) from random ones of the draw's
    seed, all at the rate that does best on validation in the first draws."""

    def at(seed: int, rate: float) -> Trained:
        return _remembered(draws[seed], spec, budget.settings(rate, seed), scratch, registry, cache)

    def key(rate: float) -> tuple[float, float]:
        tried = [at(seed, rate) for seed in range(min(budget.tuning_draws, len(draws)))]
        return sum(t.val for t in tried), -sum(t.val_loss for t in tried)

    rate = max(budget.rates, key=key)
    return [at(seed, rate) for seed in range(len(draws))]


def _remembered(
    manifest: Manifest, spec: BackboneSpec, config: RunConfig, scratch: bool, registry: Registry, cache: Path
) -> Trained:
    """A training, or what the cache remembers of it under everything that decides it."""
    backbone = spec.build(config.seed if scratch else None)
    settings = config.model_dump(mode="json")
    facts = [FORMAT_VERSION, backbone.fingerprint, manifest.data_version, scratch, settings, torch.__version__]
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    path = cache / "trainings" / f"{name}.json"
    if not path.is_file():
        with TemporaryDirectory() as folder:
            write_json(path, asdict(_train(manifest, backbone, spec, config, scratch, registry, Path(folder))))
    return Trained(**read_json(path))


def _train(
    manifest: Manifest,
    backbone: Backbone,
    spec: BackboneSpec,
    config: RunConfig,
    scratch: bool,
    registry: Registry,
    folder: Path,
) -> Trained:
    loader = registry.loader(manifest.modality)
    device = resolve_device(config.extract.device)
    backbone.to(memory_format=torch.channels_last)  # a fifth faster on a CPU
    started = time.process_time()
    if scratch:
        measure_norms(RawSource(manifest, loader, backbone), backbone, manifest.rows("train"))
    job = Job(
        manifest=manifest,
        train=manifest.rows("train"),
        val=manifest.rows("val"),
        loader=loader,
        spec=replace(spec, builder=lambda *_: backbone),  # whatever weights it has by now
        head_spec=registry.head(manifest.modality, manifest.targets.task, "linear"),
        config=config,
        device=device,
        space=Space(backbone.fingerprint, "end", "float32"),
        store=FeatureStore(folder / "store"),
        state=folder / "state",
    )
    fit = finetune(job)
    seconds = time.process_time() - started
    rows = manifest.rows("test")
    predicted = predict_rows(manifest, rows, loader, backbone, fit.head, device)
    history = fit.facts["finetune"]["history"]
    chosen = history[fit.facts["finetune"]["best_epoch"] - 1]
    return Trained(
        rate=config.tune.lr,
        right=(predicted.argmax(axis=1) == manifest.target_array(rows)).tolist(),
        val=chosen["val"],
        val_loss=chosen["val_loss"],
        loss=history[-1]["loss"],
        steps=len(history) * len(even_batches(manifest.rows("train"), config.tune.batch_size)),
        seconds=round(seconds, 1),
    )


def batch_norms(backbone: Backbone) -> list[_BatchNorm]:
    """The batch-norms of a network; none in a transformer."""
    return [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
