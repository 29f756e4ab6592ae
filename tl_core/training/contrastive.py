"""Contrastive tuning of the body, then the probe on what it gives: for few labels per class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tl_core.engines import resolve_precision
from tl_core.errors import UserError
from tl_core.training.average import put
from tl_core.training.checkpointed import Checkpointed, DivergedError, Position
from tl_core.training.finetune import channels_last, embeddings_by, repeatable
from tl_core.training.job import Fitted, decoded
from tl_core.training.loop import Training
from tl_core.training.plan import plan_of
from tl_core.training.probe import fit_probe
from tl_core.training.processes import processes
from tl_core.training.sources import RawSource, SourceFacts, source_of
from tl_core.training.state import read_state, state_key
from tl_core.training.trained import Trained
from tl_core.types import Backbone, Head
from tl_core.watch import watch_metric

if TYPE_CHECKING:
    from tl_core.training.job import Job


class Pairs(Head):
    """Embeddings as directions [N, D], judged by the pairs among them; has no weights."""

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Squared error of the cosines of all pairs of a batch: 1 within a class, 0 between two.

        Pairs of one class count as much in sum as pairs of two: among many classes they are rare.
        """
        left, right = torch.triu_indices(len(targets), len(targets), 1, device=targets.device)
        same = targets[left] == targets[right]
        errors = ((logits[left] * logits[right]).sum(dim=1) - same.float()).square()
        kinds = [errors[kind] for kind in (same, ~same)]
        found = [errors.mean() for errors in kinds if len(errors)]
        return torch.stack(found).mean() if found else logits.sum() * 0.0

    def decode(self, logits: Tensor) -> Tensor:
        """The directions themselves: without classes there is nothing to decode."""
        return logits


@dataclass
class Progress(Position):
    """How far the tuning by pairs has come. losses: the mean one of each finished epoch."""

    losses: list[float] = field(default_factory=list)


def contrastive(job: Job) -> Fitted:
    """Tune the backbone so that samples of one class point one way, then fit the probe on its embeddings.

    As SetFit does (Tunstall et al. 2022, arXiv:2209.11055), but with all pairs of a batch instead of drawn ones, and by
    tl's own loop: `train_from`, `update`, `epochs`, `lr` and the other keys of training mean what they mean elsewhere.
    No epoch is chosen: the last one's weights are taken, as a few validation rows could not tell epochs apart; they
    choose the probe's strength. The state is saved in `job.state`, as that of fine-tuning is: a run that was killed
    goes on from there and ends with the same bytes.
    Raises UserError, all faults at once, on settings and tasks that pairs make no sense with, and where the training
    diverges.
    """
    _check(job)
    body = job.tuned(strategy="finetune")
    tune, device = body.config.tune, body.device
    with repeatable(device, tune.deterministic):
        backbone = body.spec.build()
        plan = plan_of(tune, backbone)
        source, cut = source_of(body, backbone, plan)
        channels_last(backbone.to(device))
        trained = Trained(backbone, plan, tune, body.config.seed)
        precision = tune.precision if tune.precision != "auto" else resolve_precision("auto", device, {})
        training = Training(body, backbone, Pairs(), trained, source, precision, processes(device))
        key = state_key(job, backbone.fingerprint, precision, 1, source.start)
        losses = _train(training, key)
        trained.finish()
        x_train, x_val = (_embedded(body, backbone, rows) for rows in (job.train, job.val))
    y_train, y_val = job.targets(job.train), job.targets(job.val)
    head, spec, targets = job.head(backbone.feature_dim), job.head_spec, job.manifest.targets
    fit = fit_probe(
        x_train, y_train, x_val, y_val, head, spec, targets, tune.strengths, tune.refit,
        balance=tune.balance, calibrate=tune.calibrate,
    )  # fmt: skip
    said = decoded(fit.head, fit.val_logits)
    return Fitted(
        head=fit.head,
        backbone=backbone,
        trained=trained.segments,
        facts={
            "strategy": "contrastive",
            "validation": watch_metric(targets.task, said, y_val.numpy(), spec.watch),
            "temperature": fit.temperature,
            "probe": {"strength": fit.strength, "refit": tune.refit, "path": fit.path},
            "finetune": None,
            "contrastive": _facts(training, losses, cut),
        },
        said=said,
        seen=job.train,
        said_seen=decoded(fit.head, fit.head(x_train)),
    )


def _train(training: Training, key: str) -> list[float]:
    """Train all epochs, from the state that is saved under the key where there is one; the mean loss of each.

    Raises UserError where it diverges.
    """
    steps = Checkpointed(training, key, Progress(), lambda: ({}, {}))
    if (saved := read_state(training.job.state, key)) is not None:
        steps.resume(saved)
    try:
        with steps.under_way():
            while steps.at.epoch <= training.epochs and not steps.asked():
                if steps.train("pairs, "):
                    steps.at.losses.append(steps.at.loss / len(training.job.train))
                    steps.at.next_epoch()
                    steps.save_if_cheap()
    except DivergedError as error:
        raise UserError(f"the contrastive tuning diverged {error}") from error
    if training.average is not None:
        put(training.average.tensors, training.live)
    return steps.at.losses


def _embedded(job: Job, backbone: Backbone, rows: np.ndarray) -> Tensor:
    """Embeddings of manifest rows by the backbone as tuned, as bundles compute them: float32 [N, D] on the CPU."""
    source = RawSource(job.manifest, job.loader, backbone)
    return embeddings_by(source, rows, backbone, job.device, job.space.precision)


def _check(job: Job) -> None:
    """Raise UserError, all faults at once, where pairs make no sense with the task, the settings or the launch."""
    tune, task = job.config.tune, job.manifest.targets.task
    faults = []
    if task != "multiclass":
        faults.append(
            f"config key 'tune.strategy' can't be 'contrastive' where the task is {task}: pairs need samples that have "
            "one class each; allowed here: probe, finetune, lp_ft, gradual or scratch"
        )
    elif np.unique(job.manifest.target_array(job.train), return_counts=True)[1].max() < 2:
        faults.append(
            "config key 'tune.strategy' can't be 'contrastive': no class has two training samples, so that there is no "
            "pair of one class; allowed here: probe, or label more"
        )
    if tune.batch_size < 2 or tune.memory_batch == 1:
        key = "batch_size" if tune.batch_size < 2 else "memory_batch"
        faults.append(
            f"config key 'tune.{key}' can't be 1 with tune.strategy=contrastive: pairs are made of samples that go "
            "through the network together; set it to 2 or more, better 16"
        )
    for key, value, off in (
        ("mix", tune.mix, "none"),
        ("label_smoothing", tune.label_smoothing, 0),
        ("find_lr", tune.find_lr, False),
    ):
        if value != off:
            faults.append(
                f"config key 'tune.{key}' can't be {value!r} with tune.strategy=contrastive: it learns from pairs of "
                f"samples, not from classes; set it to {off!r}"
            )
    if (count := processes(job.device).count) > 1:
        faults.append(
            f"tune.strategy=contrastive runs in one process, not in {count}: pairs need a whole batch; run it without "
            "`accelerate launch`"
        )
    if faults:
        raise UserError("\n".join(faults))


def _facts(training: Training, losses: list[float], cut: SourceFacts) -> dict[str, Any]:
    """The block `contrastive` of tune.json."""
    tune = training.job.config.tune
    return {
        "trained_segments": list(training.trained.segments),
        "trained_parameters": training.trained.parameters,
        "update": tune.update,
        "losses": losses,
        "precision": training.precision,
        "memory_batch": min(training.at_once, tune.batch_size),
        "cut": cut.cut,
        "cut_why": cut.why,
        "wise": tune.wise,
        "ema": tune.ema,
    }
