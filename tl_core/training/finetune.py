"""Fine-tuning: the head and segments of the backbone, trained together."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from tl_core.engines import resolve_precision
from tl_core.errors import UserError
from tl_core.extraction import embed
from tl_core.heads import LinearHead
from tl_core.linear_path import moments
from tl_core.training.adapters import ADAPTERS
from tl_core.training.find_lr import find_lr
from tl_core.training.job import Fitted, Job, decoded
from tl_core.training.loop import Training
from tl_core.training.norms import measure_norms
from tl_core.training.plan import Plan, plan_of
from tl_core.training.probe_job import probe
from tl_core.training.processes import Processes, processes
from tl_core.training.run import Run
from tl_core.training.sources import RawSource, SourceFacts, source_of
from tl_core.training.standardise import standardise
from tl_core.training.start import Start
from tl_core.training.state import read_state, state_key
from tl_core.training.temperature import folded, temperature
from tl_core.training.trained import Trained
from tl_core.types import Backbone, Head, Loader, Prepared
from tl_core.watch import watch_metric

if TYPE_CHECKING:
    from tl_core.manifest import Manifest

MOMENT_ROWS = 2000  # training rows that the head's mean and scale are measured on: enough for both
MIN_SCALE = 0.01  # of the median scale: the gradient is divided by it, and a nearly dead column's would drown the rest
EVAL_ROWS = 256  # samples decoded at a time where nothing is trained


def finetune(job: Job) -> Fitted:
    """Train a head and segments of the backbone by the plan of `tune.strategy`, and keep the best epoch on validation.

    AdamW with warm-up and `tune.schedule`, gradients clipped; ends after `tune.patience` epochs that are clearly worse
    than the best by the watched metric, and takes the last that is not. The state is saved in `job.state`: a run that
    was killed goes on from there and ends with the same bytes. Everything random follows config.seed: on the CPU two
    runs give the same bytes. Processes that `accelerate launch` started train together and return the same; the first
    one saves.
    Raises UserError on settings that don't suit the backbone, the head, the data or the launch, and where the training
    diverges before the end of an epoch.
    """
    together = processes(job.device)
    job = job.replace(device=together.device)
    _check(job, together)
    tune, device = job.config.tune, job.device
    with repeatable(device, tune.deterministic):
        backbone = job.spec.build(job.config.seed if tune.strategy == "scratch" else None)
        plan = plan_of(tune, backbone)
        if job.start is not None and (misfit := job.start.misfit(backbone, plan)) is not None:
            raise ValueError(f"no start for this job: {misfit}")
        source, cut = source_of(job, backbone, plan, _seen(job))
        head = _head(job, plan, backbone).to(device).requires_grad_(True)
        channels_last(backbone.to(device))
        trained = Trained(backbone, plan, tune, job.config.seed, job.start)
        precision = tune.precision if tune.precision != "auto" else resolve_precision("auto", device, {})
        made = partial(Training, job, backbone, head, trained, source, precision, together)
        key = state_key(job, backbone.fingerprint, precision, together.count, source.start)
        saved = read_state(job.state, key)
        found_lr = saved.facts["found_lr"] if saved is not None else _found_lr(job, backbone, head, made)
        training = made(lr=None if found_lr is None else found_lr["lr"])
        run = Run(training, plan, _seen(job), key, {"found_lr": found_lr})
        if saved is not None:
            run.resume(saved)
        together.wait()  # until all have read the state, before one of them saves the next
        run.go()
        trained.finish()
        head.requires_grad_(False).eval()
        if tune.wise < 1 or tune.update in ADAPTERS:  # the model is not quite what the best epoch was judged by
            run.look()
    y = job.targets(job.val)
    cooling = temperature(run.said["val"], y, job.head_spec.task) if tune.calibrate and _cools(head) else None
    if cooling is not None:
        head = folded(cast(LinearHead, head), cooling)
    said, said_seen = (decoded(head, run.said[part] / (cooling or 1.0)) for part in ("val", "seen"))
    validation = watch_metric(job.head_spec.task, said, y.numpy(), job.head_spec.watch)
    facts = {"strategy": tune.strategy, "validation": validation, "temperature": cooling, "probe": None}
    return Fitted(
        head=head,
        backbone=backbone,
        trained=trained.segments,
        facts={**facts, "finetune": {**_facts(training, run, cut), "found_lr": found_lr}},
        said=said,
        seen=run.seen,
        said_seen=said_seen,
    )


@torch.no_grad()
def predict_rows(
    manifest: Manifest,
    rows: np.ndarray,
    loader: Loader,
    backbone: Backbone,
    head: Head,
    device: torch.device,
    precision: str = "float32",
) -> np.ndarray:
    """Decoded predictions of manifest rows, read from the raw samples: float32 [N, C], or [N] for regression."""
    head.to(device).eval()
    embeddings = embeddings_by(RawSource(manifest, loader, backbone), rows, backbone, device, precision)
    return decoded(head, head(embeddings.to(device)))


def _check(job: Job, together: Processes) -> None:
    """Raise UserError, all faults at once, where settings don't suit the task or the launch."""
    tune, task = job.config.tune, job.manifest.targets.task
    faults = []
    if tune.balance and task != "multiclass":
        faults.append(
            f"config key 'tune.balance' can't be true where a backbone is trained and the task is {task}: it draws "
            "samples that have one class each; set it to false"
        )
    if tune.batch_size < together.count:
        faults.append(
            f"config key 'tune.batch_size' can't be {tune.batch_size} with {together.count} processes, which share a "
            f"batch; allowed: {together.count} or more"
        )
    if faults:
        raise UserError("\n".join(faults))


def _head(job: Job, plan: Plan, backbone: Backbone) -> Head:
    """The head as training starts it: standardised by training embeddings, its weights zero or those of the probe.

    Where training goes on from another model, its head's rows take the place of these, class by class.
    """
    start, classes = job.start, job.task.classes
    head = job.head(backbone.feature_dim)
    if start is None:
        return _first_head(job, plan, backbone, job.features)
    if not start.suits(head, classes):
        return _first_head(job, plan, backbone, partial(_started, job, start))
    if plan.head_start == "probe" and start.new(classes):
        head = _first_head(job, plan, backbone, partial(_started, job, start))
    return start.carry(head, classes)


def _first_head(job: Job, plan: Plan, backbone: Backbone, features: Callable[[np.ndarray], Tensor]) -> Head:
    """The head as the strategy begins it. features: embeddings [N, D] of manifest rows by the backbone as it starts."""
    if plan.head_start == "probe":  # on training rows alone: validation rows are yet to choose the epoch
        head = probe(job.tuned(refit=False, calibrate=False), features).head
        if isinstance(head, LinearHead):
            least = _least(head.scale)
            head.linear.weight.data[:, head.scale < least] = 0.0
            head.scale.clamp_min_(least)
        return head
    few = np.random.default_rng(job.config.seed).permutation(job.train)[:MOMENT_ROWS]
    if plan.random:
        raw = RawSource(job.manifest, job.loader, backbone)
        measure_norms(raw, backbone.to(job.device), few)
        embeddings = embeddings_by(raw, few, backbone, job.device, job.space.precision)
    else:
        embeddings = features(few)
    mean, scale = moments(embeddings)
    head = job.head(backbone.feature_dim)
    standardise(head, mean, scale.clamp_min(_least(scale)), job.targets(job.train))
    return head


def _started(job: Job, start: Start, rows: np.ndarray) -> Tensor:
    """Embeddings of manifest rows by the backbone with the weights that training goes on from."""
    backbone = start.put(job.spec.build()).to(job.device).eval()
    channels_last(backbone)
    return embeddings_by(RawSource(job.manifest, job.loader, backbone), rows, backbone, job.device, job.space.precision)


def _cools(head: Head) -> bool:
    """Whether a temperature can be folded into the head's weights."""
    return isinstance(head, LinearHead) and type(head).forward is LinearHead.forward


def _least(scale: Tensor) -> float:
    return MIN_SCALE * float(scale.median())


def embeddings_by(
    source: RawSource, rows: np.ndarray, backbone: Backbone, device: torch.device, precision: str
) -> Tensor:
    """Embeddings of manifest rows by the backbone as it is now, as bundles compute them: float32 [N, D] on the CPU."""
    parts = [rows[at : at + EVAL_ROWS] for at in range(0, len(rows), EVAL_ROWS)]
    with closing(source.batches(parts)) as stream:
        found = [embed(backbone, prepared, device, precision) for _, prepared in stream]
    return torch.cat(found) if found else torch.zeros(0, backbone.feature_dim)


def _found_lr(job: Job, backbone: Backbone, head: Head, made: Callable[[], Training]) -> dict[str, Any] | None:
    """What the range test finds, where it is asked for."""
    if not job.config.tune.find_lr:
        return None
    training = made()

    def batches() -> Generator[tuple[Sequence[Prepared], Tensor], None, None]:
        for epoch in count(1):
            with closing(training.batches(epoch)) as stream:
                for _, prepared, y in stream:
                    yield prepared, y

    with closing(batches()) as stream:
        return dict(find_lr(training, stream, [backbone, head], job.config.tune.lr).facts())


def _seen(job: Job) -> np.ndarray:
    """Training rows that are looked at along with validation, as many as there: what is learnt and what memorised."""
    some = np.random.default_rng([job.config.seed, len(job.train)]).permutation(job.train)[: len(job.val)]
    return np.sort(some)


def _facts(training: Training, run: Run, cut: SourceFacts) -> dict[str, Any]:
    """The block `finetune` of tune.json."""
    tune, progress = training.job.config.tune, run.progress
    stopped = progress.stopped
    if stopped is None and len(progress.history) < training.epochs:
        stopped = (
            f"{tune.patience} epochs with a clearly worse {training.job.head_spec.watch} on validation than the best"
        )
    return {
        "best_epoch": progress.best_epoch,
        "trained_segments": list(training.trained.segments),
        "trained_parameters": training.trained.parameters,
        "update": tune.update,
        "history": progress.history,
        "stopped": stopped,
        "diverged": progress.stopped is not None,
        "precision": training.precision,
        "memory_batch": min(training.at_once, tune.batch_size),
        "cut": cut.cut,
        "cut_why": cut.why,
        "wise": tune.wise,
        "ema": tune.ema,
    }


def channels_last(backbone: Backbone) -> None:
    """Lay out what convolutions hold as they are quickest, and as the engines that read the weights have it."""
    for tensor in (*backbone.parameters(), *backbone.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


@contextmanager
def repeatable(device: torch.device, wanted: bool) -> Iterator[None]:
    """Torch's generators are as before afterwards; where it is wanted, only kernels that give the same bits again.

    Raises RuntimeError inside where an operation has no such kernel.
    """
    cuda = device.type == "cuda"
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    if cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without which cuBLAS is refused
    with (
        torch.random.fork_rng(devices=[device] if cuda else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=not wanted, deterministic=wanted) if cuda else nullcontext(),
    ):
        torch.use_deterministic_algorithms(wanted)
        settings.fill_uninitialized_memory = False  # a search for faults, and a slow one
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0])
            settings.fill_uninitialized_memory = before[1]
