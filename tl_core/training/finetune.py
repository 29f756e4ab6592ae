"""Fine-tuning: the head and the last segments of the backbone, trained together on raw samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tl_core.config import RunConfig, TuneConfig
from tl_core.errors import UserError
from tl_core.extraction import collate_samples, embed, pool_windows
from tl_core.linear_path import moments
from tl_core.progress import progress
from tl_core.training.batches import Samples, even_batches
from tl_core.training.standardise import standardise
from tl_core.types import Backbone, Head, HeadSpec, Loader, Prepared, State
from tl_core.watch import watch_metric

if TYPE_CHECKING:
    from tl_core.manifest import Manifest

MAX_NORM = 1.0  # of the gradient
MOMENT_ROWS = 2000  # training rows that the head's mean and scale are measured on: enough for both
MIN_SCALE = 0.01  # of the median scale: the gradient is divided by it, and a nearly dead column's would drown the rest
EVAL_ROWS = 256  # samples decoded at a time where nothing is trained


@dataclass(frozen=True)
class FinetuneFit:
    """The trained head and backbone, with the weights of the best epoch.

    trained: names of the segments that were trained; history: one row per epoch (`epoch`, `loss`, `val_loss` and
    `val`, the watched metric); best_epoch: counted from 1.
    """

    head: Head
    backbone: Backbone
    trained: tuple[str, ...]
    history: list[dict[str, float]]
    best_epoch: int


def finetune(
    manifest: Manifest,
    loader: Loader,
    backbone: Backbone,
    head: Head,
    spec: HeadSpec,
    config: RunConfig,
    device: torch.device,
    precision: str = "float32",
) -> FinetuneFit:
    """Train the head and the last segments in place, and keep the epoch that is best on validation.

    AdamW with a rate for the backbone and one for the head, no weight decay on biases and norms, linear warm-up,
    then a cosine to zero, gradients clipped to norm 1. Stops after `tune.patience` epochs without a better
    watched metric (ties: the lower loss is better). Segments before `tune.train_from` run in eval mode without
    gradients; their batch-norm statistics stay. A linear head is standardised by the training embeddings first.
    Everything random follows config.seed: on the CPU two runs give the same bytes. Test rows are never read.
    precision: the class that embeddings are computed in where nothing trains.
    Raises UserError on a `train_from` that the backbone has no segments for, and where the training diverges;
    ValueError without training or validation rows.
    """
    rows, val_rows = manifest.rows("train"), manifest.rows("val")
    if len(rows) == 0 or len(val_rows) == 0:
        raise ValueError(f"fine-tuning needs training and validation rows; got {len(rows)} and {len(val_rows)}")
    start = first_trained(backbone, config.tune.train_from)
    backbone.to(device).requires_grad_(False).eval()
    head.to(device).requires_grad_(True)
    samples = Samples(manifest, loader, backbone)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)  # dropout
        few = np.random.default_rng(config.seed).permutation(rows)[:MOMENT_ROWS]
        embeddings = _embeddings(samples, few, device, precision)
        mean, scale = moments(embeddings)
        standardise(head, mean, scale.clamp_min(MIN_SCALE * float(scale.median())), samples.targets(rows))
        training = _Training(
            samples, head, config, device, start, steps=len(even_batches(rows, config.tune.batch_size))
        )
        history, best_epoch = _epochs(training, spec, rows, val_rows, precision)
    head.requires_grad_(False).eval()
    backbone.requires_grad_(False).eval()
    return FinetuneFit(head, backbone, backbone.segment_names[start:], history, best_epoch)


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
    return _decoded(head, _logits(Samples(manifest, loader, backbone), rows, head, device, precision))


def first_trained(backbone: Backbone, train_from: int | str) -> int:
    """Index of the first segment to train: the last `train_from` of those that hold weights, or all.

    Raises UserError where the backbone has not as many.
    """
    segments = list(backbone.segments.values())
    weighted = [i for i, segment in enumerate(segments) if any(True for _ in segment.parameters())]
    if train_from == "all":
        return weighted[0] if weighted else len(segments)
    if isinstance(train_from, int) and 1 <= train_from <= len(weighted):
        return weighted[-train_from]
    names = ", ".join(backbone.segment_names[i] for i in weighted)
    allowed = f"1 to {len(weighted)} (of {names}), or all" if weighted else "all"
    raise UserError(
        f"config key 'tune.train_from' can't be {train_from}: the backbone has {len(weighted)} segments with "
        f"weights; allowed: {allowed}"
    )


class _Training:
    """The networks, their optimiser and schedule, and the best weights so far."""

    def __init__(
        self, samples: Samples, head: Head, config: RunConfig, device: torch.device, start: int, steps: int
    ) -> None:
        self.samples, self.head, self.config, self.device, self.start = samples, head, config, device, start
        self._suffix = nn.ModuleList(list(samples.backbone.segments.values())[start:])
        self._suffix.requires_grad_(True)
        tune = config.tune
        groups = [*_groups(self._suffix, tune.lr, tune), *_groups(head, tune.head_lr, tune)]
        self._optimizer = torch.optim.AdamW(groups)
        total = steps * tune.epochs
        rising = max(1, round(tune.warmup * total))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: warm_cosine(step, rising, total)
        )
        self._best: dict[str, Tensor] = {}

    def epoch(self, epoch: int, rows: np.ndarray, shown: dict[str, str]) -> float:
        """One pass over shuffled training rows; the mean loss. Raises UserError where it diverges.

        shown: what stands in the bar beside the loss.
        """
        tune, seed = self.config.tune, self.config.seed
        batches = even_batches(np.random.default_rng([seed, epoch]).permutation(rows), tune.batch_size)
        stream = self.samples.batches(batches, (seed, epoch) if tune.augment else None)
        self.head.train()
        total = 0.0
        with closing(stream), progress(len(batches), f"epoch {epoch}/{tune.epochs}", unit="batch") as bar:
            for number, (batch, prepared) in enumerate(stream, 1):
                loss = self._step(prepared, self.samples.targets(batch), f"in epoch {epoch}, batch {number}")
                total += loss * len(batch)
                bar.set_postfix(loss=f"{loss:.4f}", **shown, refresh=False)
                bar.update()
        self.head.eval()
        self.samples.backbone.eval()
        return total / len(rows)

    def keep(self) -> None:
        """Remember the present weights as the best."""
        self._best = {name: tensor.detach().cpu().clone() for name, tensor in self._state()}

    def restore(self) -> None:
        """Go back to the best weights."""
        for name, tensor in self._state():
            tensor.copy_(self._best[name])

    def diverged(self, where: str) -> UserError:
        tune = self.config.tune
        return UserError(
            f"the training diverged {where}: the loss is not finite; lower tune.lr (now {tune.lr:g}) and "
            f"tune.head_lr (now {tune.head_lr:g}), or raise tune.warmup (now {tune.warmup:g})"
        )

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        for part, module in (("backbone", self._suffix), ("head", self.head)):
            for name, tensor in module.state_dict().items():
                yield f"{part}.{name}", tensor

    def _step(self, prepared: list[Prepared], targets: Tensor, where: str) -> float:
        outputs, owners = [], []
        for _, batch, owner in collate_samples(self.samples.backbone, prepared):
            outputs.append(self._forward({key: value.to(self.device) for key, value in batch.items()}, len(owner)))
            owners.append(owner)
        features = pool_windows(torch.cat(outputs), torch.cat(owners).to(self.device), len(prepared))
        loss = self.head.loss(self.head(features), targets.to(self.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self.diverged(where)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(chain(self._suffix.parameters(), self.head.parameters()), MAX_NORM)
        if not math.isfinite(float(norm)):
            raise self.diverged(where)
        self._optimizer.step()
        self._schedule.step()
        return value

    def _forward(self, state: State, windows: int) -> Tensor:
        """Embeddings [W, D] of a batch of windows, with gradients from the first trained segment on."""
        backbone = self.samples.backbone
        self._suffix.train()
        if windows == 1:  # a single row has no statistics of its own
            for module in self._suffix.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        with torch.no_grad():
            state = backbone(state, 0, self.start)
        result: State = backbone(state, self.start)
        return result["x"]


def _epochs(
    training: _Training, spec: HeadSpec, rows: np.ndarray, val_rows: np.ndarray, precision: str
) -> tuple[list[dict[str, float]], int]:
    """Train until the epochs or the patience run out, and restore the best; (history, best epoch)."""
    tune = training.config.tune
    truth = training.samples.targets(val_rows)
    history: list[dict[str, float]] = []
    best, best_epoch = (-math.inf, -math.inf), 0
    for epoch in range(1, tune.epochs + 1):
        shown = {f"val {spec.watch}": f"{history[-1]['val']:.4f}"} if history else {}
        loss = training.epoch(epoch, rows, shown)
        logits = _logits(training.samples, val_rows, training.head, training.device, precision)
        val_loss = float(training.head.loss(logits, truth.to(logits.device)))
        if not math.isfinite(val_loss):
            raise training.diverged(f"in epoch {epoch}, on the validation rows")
        val = watch_metric(spec.task, _decoded(training.head, logits), truth.numpy(), spec.watch)
        history.append({"epoch": epoch, "loss": loss, "val_loss": val_loss, "val": val})
        key = (val if spec.higher_is_better else -val, -val_loss)
        if key > best:
            best, best_epoch = key, epoch
            training.keep()
        elif epoch - best_epoch >= tune.patience:
            break
    training.restore()
    return history, best_epoch


def warm_cosine(step: int, rising: int, total: int) -> float:
    """Share of the peak learning rate at a step: linear over the first `rising`, then a cosine to zero."""
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def _groups(module: nn.Module, lr: float, tune: TuneConfig) -> list[dict[str, object]]:
    """Parameter groups at one learning rate: matrices decay, vectors (biases, norms) don't."""
    matrices = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "lr": lr, "weight_decay": tune.weight_decay},
        {"params": vectors, "lr": lr, "weight_decay": 0.0},
    ]


def _embeddings(samples: Samples, rows: np.ndarray, device: torch.device, precision: str) -> Tensor:
    """Embeddings of manifest rows by the backbone as it is now, float32 [N, D] on the CPU."""
    parts = [rows[at : at + EVAL_ROWS] for at in range(0, len(rows), EVAL_ROWS)]
    found = [embed(samples.backbone, prepared, device, precision) for _, prepared in samples.batches(parts)]
    return torch.cat(found) if found else torch.zeros(0, samples.backbone.feature_dim)


@torch.no_grad()
def _logits(samples: Samples, rows: np.ndarray, head: Head, device: torch.device, precision: str) -> Tensor:
    """Logits [N, C] of manifest rows, on the device."""
    head.to(device).eval()
    logits: Tensor = head(_embeddings(samples, rows, device, precision).to(device))
    return logits


@torch.no_grad()
def _decoded(head: Head, logits: Tensor) -> np.ndarray:
    decoded: np.ndarray = head.decode(logits).float().cpu().numpy()
    return decoded
