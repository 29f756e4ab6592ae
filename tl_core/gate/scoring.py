"""What a model bundle says of manifest rows, how long it takes and how much it weighs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from tl_core.bundle import ModelBundle
from tl_core.config import RunConfig
from tl_core.errors import UserError
from tl_core.evaluation.bootstrap import Numbers
from tl_core.extraction import features, space_of
from tl_core.gate.contest import Asked, Candidate, placed
from tl_core.manifest import Manifest
from tl_core.store import FeatureStore
from tl_core.training.finetune import embeddings_by
from tl_core.training.job import decoded
from tl_core.training.sources import RawSource
from tl_core.types import Source

LATENCY_SAMPLES = 16
REPEATS = 3
WARM_UP = 2


def candidate(
    name: str,
    digest: str,
    folder: Path,
    bundle: ModelBundle,
    manifest: Manifest,
    asked: Asked,
    store: FeatureStore,
    config: RunConfig,
) -> Candidate:
    """A bundle as the gate judges it: its answers to the rows of a manifest, and what limits of the gate ask for.

    folder: where the bundle lies; digest: of its files, by which two models are told to be one.
    """
    gate = config.gate
    said = answers(bundle, manifest, asked.rows, store, engine=config.extract.engine)
    few = asked.rows[:: max(1, len(asked.rows) // LATENCY_SAMPLES)][:LATENCY_SAMPLES]
    sources = [sample.source for sample in manifest.samples(few)]
    return Candidate(
        name=name,
        digest=digest,
        classes=bundle.targets.classes,
        predictions=placed(said, bundle.targets.classes, asked.targets),
        milliseconds=None if gate.max_latency_ms is None else latency(bundle, sources),
        megabytes=None if gate.max_megabytes is None else megabytes(folder, bundle),
    )


def answers(
    bundle: ModelBundle, manifest: Manifest, rows: np.ndarray, store: FeatureStore, *, engine: str = "auto"
) -> Numbers:
    """What a bundle says of good manifest rows: probabilities [N, C] over its own classes, or values [N].

    From the feature store where its backbone is the pretrained one (rows that the store lacks are computed and kept
    there), through its own network where that was tuned. Raises UserError where the data are of another modality or
    task, and as extraction does.
    """
    facts = bundle.facts
    if (facts["modality"], bundle.targets.task) != (manifest.modality, manifest.targets.task):
        raise UserError(
            f"the model is for {facts['modality']} data and a {bundle.targets.task} task, the data are "
            f"{manifest.modality} and {manifest.targets.task}: two models of one task can be compared; start another "
            "project for the other task"
        )
    if len(rows) == 0:
        return np.zeros((0,) if bundle.targets.task == "regression" else (0, bundle.targets.outputs), np.float32)
    if facts["trained_segments"]:
        raw = RawSource(manifest, bundle.loader, bundle.backbone)
        embeddings = embeddings_by(raw, rows, bundle.backbone, bundle.device, facts["precision"])
    else:
        space = space_of(bundle.backbone, facts["precision"])
        found = features(
            manifest, rows, bundle.loader, lambda: bundle.backbone, space, store,
            device=str(bundle.device), engine=engine,
        )  # fmt: skip
        embeddings = torch.from_numpy(found)
    with torch.inference_mode():
        return decoded(bundle.head, bundle.head(embeddings))


def latency(
    bundle: ModelBundle,
    sources: Sequence[Source],
    *,
    repeats: int = REPEATS,
    clock: Callable[[], float] = time.perf_counter,
) -> float | None:
    """Milliseconds from a source to the answer, one at a time, warm: the median over sources and repeats.

    None where there is no source. A fact of the machine and its load, not of the model alone.
    """
    for source in sources[:WARM_UP]:
        bundle.predict([source])
    taken = []
    for source in [*sources] * repeats:
        started = clock()
        bundle.predict([source])
        taken.append(clock() - started)
    return round(1000 * statistics.median(taken), 3) if taken else None


def megabytes(folder: Path, bundle: ModelBundle) -> float:
    """Size of the bundle's files and of the backbone's weights that are not among them, in 10^6 bytes."""
    own = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    stored = tuple(f"segments.{name}." for name in bundle.facts["trained_segments"])
    tensors = bundle.backbone.state_dict()
    lent = sum(t.numel() * t.element_size() for key, t in tensors.items() if not key.startswith(stored))
    return round(float(own + lent) / 1e6, 3)
