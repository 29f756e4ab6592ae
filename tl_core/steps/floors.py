"""What the model must beat: answers that take no pretraining, on the same test rows."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tl_core.engines import resolve_precision
from tl_core.evaluation import majority_predictions
from tl_core.evaluation.baseline import plain_features
from tl_core.extraction import features
from tl_core.heads import linear_head
from tl_core.selection.speed import speed_of
from tl_core.steps.backbone import Lazy
from tl_core.store import Space
from tl_core.training import Job, fit_probe, predict_rows
from tl_core.training.job import decoded
from tl_core.training.rival import from_scratch
from tl_core.workspace import Workspace


@dataclass(frozen=True)
class Floors:
    """Predictions of the test rows by floor, and in sentences what there could be but is not."""

    predictions: dict[str, np.ndarray]
    left_out: tuple[str, ...]


def floors_of(job: Job, strategy: str, random: Mapping[str, Any], workspace: Workspace) -> Floors:
    """All floors of the test rows; strategy: as the model was tuned; random: the receipt's facts on the random twin."""
    manifest, test = job.manifest, job.manifest.rows("test")
    found = {
        "majority": majority_predictions(manifest.targets, manifest.target_array(job.train), len(test)),
        "random_init": random_predictions(job, test, random),
    }
    left_out: list[str] = []
    settings = job.config.evaluate
    if settings.baseline:
        plain = plain_features(manifest, job.loader, job.store, job.train, job.val, test)
        if plain is not None:
            found["baseline"] = probe_predictions(job, *map(torch.from_numpy, plain))
    if settings.scratch_minutes and strategy not in ("probe", "scratch"):  # a probe has its match in the random twin
        said, reason = scratch_predictions(job.tuned(strategy=strategy), test, workspace)
        if said is not None:
            found["scratch"] = said
        else:
            left_out.append(f"not compared with the network trained from random weights: {reason}")
    return Floors(found, tuple(left_out))


def random_predictions(job: Job, rows: np.ndarray, facts: Mapping[str, Any]) -> np.ndarray:
    """Predictions of rows by a linear probe on the same network with random weights, tuned the same way."""
    build = Lazy(job.spec, random_seed=job.config.seed)
    space = Space(facts["fingerprint"], facts["cut"], job.space.precision)
    settings = job.config.extract

    def of(part: np.ndarray) -> torch.Tensor:
        found = features(
            job.manifest, part, job.loader, build, space, job.store, device=settings.device, engine=settings.engine
        )
        return torch.from_numpy(found)

    return probe_predictions(job, of(job.train), of(job.val), of(rows))


def probe_predictions(job: Job, x_train: torch.Tensor, x_val: torch.Tensor, x: torch.Tensor) -> np.ndarray:
    """What a linear probe says of features [N, D] after learning from others, with the settings of the model's own."""
    tune = job.config.tune
    head_spec = linear_head(job.manifest.modality, job.task.task)
    head = head_spec.build(x.shape[1], job.task)
    y_train, y_val = job.targets(job.train), job.targets(job.val)
    fit = fit_probe(
        x_train, y_train, x_val, y_val, head, head_spec, job.task, tune.strengths, tune.refit,
        balance=tune.balance, calibrate=tune.calibrate,
    )  # fmt: skip
    with torch.inference_mode():
        return decoded(fit.head, fit.head(x))


def scratch_predictions(job: Job, rows: np.ndarray, workspace: Workspace) -> tuple[np.ndarray | None, str | None]:
    """Predictions of rows by the network trained from random weights, or why there are none."""
    speed = speed_of(job.device, resolve_precision(job.config.tune.precision, job.device, {}), workspace.cache)
    rival = from_scratch(job.replace(state=job.state / "scratch"), job.config.evaluate.scratch_minutes, speed)
    if rival.fitted is None:
        return None, rival.reason
    assert rival.fitted.backbone is not None
    said = predict_rows(job.manifest, rows, job.loader, rival.fitted.backbone, rival.fitted.head, job.device)
    shutil.rmtree(job.state, ignore_errors=True)
    return said, None
