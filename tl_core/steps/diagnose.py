"""The diagnostics of a run: what cached features, predictions and columns say of the data and the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tl_core.bundle import ModelBundle
from tl_core.diagnostics.calibration import calibration
from tl_core.diagnostics.group_split import group_split
from tl_core.diagnostics.labels import label_errors
from tl_core.diagnostics.leakage import leakage
from tl_core.diagnostics.results import Diagnostics
from tl_core.diagnostics.robustness import robustness
from tl_core.diagnostics.shift import shift
from tl_core.diagnostics.subgroups import subgroups
from tl_core.diagnostics.unusual import unusual
from tl_core.extraction import embed
from tl_core.heads import linear_head
from tl_core.training import Job, fit
from tl_core.training.job import decoded
from tl_core.types import SPLITS


@dataclass(frozen=True)
class Answers:
    """What the model says of the test rows, and the embeddings [N, D] that it says it by, as its bundle makes them."""

    embeddings: np.ndarray
    predictions: np.ndarray


def diagnose(job: Job, bundle: ModelBundle, answers: Answers, strength: float | None) -> Diagnostics:
    """All diagnostics that make sense for the data.

    Calibration, unusual rows and robustness are about the model; leakage, labels and shift about the data, by the
    pretrained backbone's features and a probe on them. strength: of that probe, None where tuning has chosen none.
    """
    strength = strength or _strength(job)
    manifest, settings = job.manifest, job.config.evaluate
    how: dict[str, Any] = {
        "confidence": settings.confidence,
        "resamples": settings.bootstrap,
        "seed": job.config.seed,
    }
    test = manifest.rows("test")
    of_test = {**how, "groups": manifest.groups(test)}
    truth, task = manifest.target_array(test), manifest.targets
    every = _Every.of(job)
    columns = {**how, "groups": every.groups}
    of_rows: dict[str, Any] = {"rows": every.rows, "ids": every.ids, "digests": every.digests, "splits": every.splits}
    apart = None
    if every.groups is not None:
        apart = group_split(every.features, every.truth, every.groups, task, strength, **how)
    found = [
        subgroups(answers.predictions, truth, task, values, column, **of_test)
        for column, values in manifest.attributes(test).items()
    ]
    result = Diagnostics(
        calibration=calibration(
            answers.predictions, truth, task, temperature=bundle.facts["training"].get("temperature"), **of_test
        ),
        leakage=leakage(
            every.features, answers.predictions, every.truth, task, **of_rows, group_split=apart, **columns
        ),
        labels=label_errors(every.features, every.truth, task, strength, **of_rows, **columns),
        shift=shift(
            every.features, every.splits, every.truth, task, attributes=manifest.attributes(every.rows),
            predictions=answers.predictions, predicted=np.flatnonzero(np.array(every.splits) == "test"), **columns,
        ),
        subgroups=tuple(one for one in found if one is not None),
        unusual=None
        if bundle.reference is None
        else unusual(
            bundle.reference, answers.embeddings, answers.predictions, truth, task,
            manifest.ids(test), test.tolist(), **of_test,
        ),
        robustness=robustness(
            manifest, test, job.loader, _predictor(bundle), truth, task, most=settings.robustness,
            need=bundle.backbone.need, **of_test,
        )
        if settings.robustness
        else None,
    )  # fmt: skip
    return dataclasses.replace(result, skipped=tuple(_skipped(result, job)))


@dataclass(frozen=True)
class _Every:
    """All usable rows of all splits, training rows first."""

    rows: np.ndarray
    features: np.ndarray
    truth: np.ndarray
    ids: list[str]
    digests: list[str]
    splits: list[str]
    groups: list[str] | None

    @classmethod
    def of(cls, job: Job) -> _Every:
        manifest = job.manifest
        parts = {split: manifest.rows(split) for split in SPLITS}
        rows = np.concatenate(list(parts.values()))
        return cls(
            rows,
            job.features(rows).numpy(),
            manifest.target_array(rows),
            manifest.ids(rows),
            manifest.digests(rows),
            [split for split, part in parts.items() for _ in part],
            manifest.groups(rows),
        )


def _skipped(found: Diagnostics, job: Job) -> Iterator[str]:
    """What was not looked at, and why."""
    number = job.task.task == "regression"
    if found.calibration is None:
        yield "calibration: a number has no probability"
    if found.labels is None:
        yield f"label errors: {'a number has no class' if number else 'too few rows whose labels can be judged'}"
    if found.leakage is None:
        yield "leakage: there are no other rows than test rows"
    if found.shift is None:
        yield "shift: there are no two sets of rows to compare"
    if not found.subgroups:
        yield "groups: no column (data.group, data.attributes) has two values of ten test rows"
    if found.unusual is None:
        yield "unusual rows: the model keeps no training rows to compare with"
    if found.robustness is None:
        off = job.config.evaluate.robustness == 0
        known = "too few test rows for it" if job.loader.corruptions else f"{job.manifest.modality} has no corruptions"
        yield f"robustness: {'evaluate.robustness is 0' if off else known}"


def _strength(job: Job) -> float:
    """What validation rows choose for a linear probe."""
    linear = linear_head(job.manifest.modality, job.task.task)
    facts = fit(job.replace(head_spec=linear).tuned(strategy="probe", refit=False)).facts
    return float(facts["probe"]["strength"])


def _predictor(bundle: ModelBundle) -> Any:
    """The model on decoded samples."""

    def predict(samples: Sequence[Any]) -> np.ndarray:
        prepared = [bundle.backbone.prepare(sample) for sample in samples]
        features = embed(bundle.backbone, prepared, bundle.device, bundle.facts["precision"])
        with torch.inference_mode():
            return decoded(bundle.head, bundle.head(features.to(bundle.device)))

    return predict
