"""A network in training: one step, one epoch, and what it says in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tl_core.engines.eager import last_segment
from tl_core.engines.engine import out_of_memory
from tl_core.errors import UserError
from tl_core.extraction import pool_windows
from tl_core.training.average import Average
from tl_core.training.drawing import drawn, even_batches
from tl_core.training.mixing import Mixed, mixer_of
from tl_core.training.objective import Objective
from tl_core.training.processes import Processes
from tl_core.training.schedule import epochs_of, share
from tl_core.training.trained import Trained
from tl_core.types import Backbone, Head, Prepared, State

if TYPE_CHECKING:
    from tl_core.training.job import Job
    from tl_core.training.sources import Source

T = TypeVar("T")

_LEAST_SCALE = 1.0  # of float16's losses: where gradients overflow even so, it is not the scale's fault


class Training:
    """Networks, optimiser and everything else that changes from step to step.

    Made on the job's device, the head as it starts. What is random in a step is drawn by the run's seed, the epoch and
    the batch alone, so that nothing but weights and position must be kept to go on from anywhere.

    lr: the backbone's peak rate where it is not `tune.lr`; all others go along in proportion. optimizer: AdamW over all
    that ever trains; live: every tensor that training moves, by name; at_once: samples that go through the network
    together, fewer than a batch where memory is short.
    """

    def __init__(
        self,
        job: Job,
        backbone: Backbone,
        head: Head,
        trained: Trained,
        source: Source,
        precision: str,
        processes: Processes,
        lr: float | None = None,
    ) -> None:
        tune = job.config.tune
        self.job, self.backbone, self.head, self.trained, self.source = job, backbone, head, trained, source
        self.processes, self.precision = processes, precision
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(trained.groups(head), fused=True)
        self.lr = tune.lr if lr is None else lr
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"] = group["lr"] * (self.lr / tune.lr)
        self.live = {f"backbone.{name}": tensor for name, tensor in trained.tensors()}
        self.live.update({f"head.{name}": tensor for name, tensor in head.state_dict().items()})
        self.scaler = torch.amp.GradScaler(job.device.type, enabled=precision == "float16")  # type: ignore[attr-defined]
        self.average = Average(tune.ema, self.live) if tune.ema > 0 else None
        self.at_once = tune.batch_size if tune.memory_batch == "auto" else tune.memory_batch
        self.epochs, self.epoch_steps = epochs_of(tune, len(job.train)), len(even_batches(job.train, tune.batch_size))
        self._objective = Objective(head, job.manifest.targets, tune)
        self._mixer = mixer_of(tune, backbone, source.start)
        self._perturbed = tune.augment and not tune.views and source.start == 0  # stored variants can't be
        self._pool = last_segment(backbone, len(backbone.segments))
        self._maps = any(isinstance(module, nn.Conv2d) for module in backbone.modules())
        self._labels = job.targets(job.train).numpy() if tune.balance else None

    def epoch(self, epoch: int, done: int = 0) -> Generator[tuple[np.ndarray, list[Prepared], float], None, None]:
        """Train one epoch (counted from 1): (rows, this process's samples, mean loss) after each step.

        done: steps of it that are behind us. A loss of nan says that the training has diverged: no update was made.
        """
        before = (epoch - 1) * self.epoch_steps
        with closing(self.batches(epoch, done)) as stream:
            for number, (rows, prepared, y) in enumerate(stream, done):
                for group in self.optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * self.share(before + number)
                yield rows, prepared, self.step(prepared, y, (epoch, number))

    def batches(self, epoch: int, done: int = 0) -> Generator[tuple[np.ndarray, list[Prepared], Tensor], None, None]:
        """(rows, this process's samples, their targets) of each batch of an epoch, to be closed; done as in epoch()."""
        tune, seed = self.job.config.tune, self.job.config.seed
        batches = even_batches(drawn(self.job.train, (seed, epoch), self._labels), tune.batch_size)[done:]
        parts = [self.processes.share(batch) for batch in batches]
        with closing(self.source.batches(parts, epoch)) as stream:
            for batch, (rows, prepared) in zip(batches, stream, strict=True):
                yield batch, prepared, self.job.targets(rows)

    def share(self, step: int) -> float:
        """Share of their peaks that the learning rates have at a step of the whole training, counted from 0."""
        tune = self.job.config.tune
        return share(tune, step, self.epoch_steps * self.epochs)

    def step(self, prepared: Sequence[Prepared], y: Tensor, at: tuple[int, int]) -> float:
        """One update by a batch; its mean loss before it, or nan (and no update) where loss or gradient is not finite.

        prepared, y: this process's samples of the batch and their targets; at: (epoch, number of the batch), by which
        everything random is drawn. The learning rates are those that the optimizer's groups have.
        """
        loss = self._within_memory(lambda: self._gradients(prepared, y.to(self.job.device), at))
        return self._update(loss, len(prepared))

    def logits(self, rows: np.ndarray) -> Tensor:
        """What the model says of manifest rows, in eval mode and without augmentation: float32 [N, C] on the CPU."""
        return self._evaluated(rows, self.head, self.job.manifest.targets.outputs)

    def embeddings(self, rows: np.ndarray) -> Tensor:
        """The embeddings of manifest rows by the backbone as it is now: float32 [N, D] on the CPU."""
        return self._evaluated(rows, nn.Identity(), self.backbone.feature_dim)

    @torch.no_grad()
    def _evaluated(self, rows: np.ndarray, end: nn.Module, width: int) -> Tensor:
        self.backbone.eval()
        self.head.eval()
        mine = self.processes.share(rows)

        def evaluated() -> Tensor:
            parts = [mine[at : at + self.at_once] for at in range(0, len(mine), self.at_once)]
            with closing(self.source.batches(parts, None)) as stream:
                found = [end(self._features(prepared)[0]).float() for _, prepared in stream]
            return torch.cat(found) if found else torch.zeros(0, width, device=self.job.device)

        return self.processes.joined(self._within_memory(evaluated), len(rows)).cpu()

    def _gradients(self, prepared: Sequence[Prepared], y: Tensor, at: tuple[int, int]) -> Tensor:
        """Leave the gradients of this process's samples in the parameters; their mean loss, penalties not counted."""
        seeds = [self.job.config.seed, *at, self.processes.index]
        torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1))  # dropout
        rng = np.random.default_rng(seeds)
        self.optimizer.zero_grad()
        self.head.train()
        total = torch.zeros((), device=self.job.device)
        for part in even_batches(np.arange(len(prepared)), self.at_once) if prepared else []:
            features, mixed = self._features([prepared[i] for i in part], rng)
            loss = self._objective(self.head(features), y[torch.from_numpy(part).to(y.device)], mixed)
            loss = loss * (len(part) / len(prepared))
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if (penalty := self.trained.penalty()) is not None:
            self.scaler.scale(penalty).backward()  # type: ignore[no-untyped-call]
        return total

    def _features(
        self, prepared: Sequence[Prepared], rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Mixed | None]:
        """Embeddings [N, D] of samples, and how they were mixed. rng: for training; without it, no gradients."""
        outputs, owners = [], []
        mixed = None
        for _, state, owner in self.source.collate(prepared):
            if rng is not None and self._perturbed:
                state = self.backbone.perturb(state, rng)
            if rng is not None and self._mixer is not None:
                state, mixed = self._mixer.mix(state, rng, owner)
            if rng is not None:
                self.trained.train(len(owner))
            outputs.append(self._forward(self._moved(state), learns=rng is not None))
            owners.append(owner)
        return pool_windows(torch.cat(outputs), torch.cat(owners).to(self.job.device), len(prepared)), mixed

    def _forward(self, state: State, learns: bool) -> Tensor:
        """Embeddings [W, D] of a batch of windows: up to the last segment, which pools, in the precision class."""
        with self.backbone.embedding_only():
            return self._embedded(state, learns)

    def _embedded(self, state: State, learns: bool) -> Tensor:
        dtype = getattr(torch, self.precision)
        for index in range(self.source.start, len(self.backbone.segments)):
            if index == self._pool:
                state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
            within = self.precision != "float32" and index < self._pool
            with (
                torch.set_grad_enabled(learns and index >= self.trained.first),
                torch.autocast(self.job.device.type, dtype) if within else nullcontext(),
            ):
                state = self.backbone(state, index, index + 1)
        return state["x"].float()

    def _moved(self, state: State) -> State:
        """A batch on the device, maps channels-last where convolutions take them so."""
        device = self.job.device
        if self._maps:
            state = {
                key: value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
                for key, value in state.items()
            }
        if device.type == "cuda":
            return {key: value.pin_memory().to(device, non_blocking=True) for key, value in state.items()}
        return state

    def _update(self, loss: Tensor, rows: int) -> float:
        """Move the weights by the gradients of all processes; the mean loss over all of their samples."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]
        if self.processes.count > 1:
            for (
                parameter
            ) in parameters:  # a part of the network may have been at rest in one process and not in another
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            gradients = [p.grad for p in parameters if p.grad is not None]
            self.processes.mean([loss, *self._statistics(), *gradients], rows)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, self.job.config.tune.clip)
        value, length = torch.stack([loss, norm]).tolist()
        overflow = not math.isfinite(length)
        if not math.isfinite(value) or (overflow and not self.scaler.is_enabled()):
            return math.nan
        self.scaler.step(self.optimizer)  # which takes no step where float16's gradients overflowed,
        self.scaler.update()  # and this makes the next ones smaller
        if overflow and self.scaler.get_scale() < _LEAST_SCALE:
            return math.nan
        if self.average is not None:
            self.average.update()
        return float(value)

    def _statistics(self) -> list[Tensor]:
        """Running statistics of the segments that train now."""
        trained = list(self.backbone.segments.values())[self.trained.first :]
        return [buffer for part in trained for buffer in part.buffers() if buffer.is_floating_point()]

    def _within_memory(self, work: Callable[[], T]) -> T:
        """What comes of work; where memory runs out, with half as many samples at once, until there is enough.

        Work begins anew then: only the running statistics of batch-norm have seen some samples twice.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if "deterministic" in str(error) and "implementation" in str(error):
                    raise UserError(f"{str(error).partition(',')[0]}; set tune.deterministic=false") from error
                if not out_of_memory(error):
                    raise
            # here, outside of the handler, the traceback no longer holds the batch's tensors
            self._halve()

    def _halve(self) -> None:
        tune = self.job.config.tune
        if tune.memory_batch != "auto" or self.at_once == 1:
            remedy = "lower it, or set it to auto" if self.at_once > 1 else "train fewer segments, or on another device"
            raise UserError(
                f"the memory does not hold {self.at_once} samples at once (config key 'tune.memory_batch'); {remedy}"
            )
        self.at_once = (min(self.at_once, tune.batch_size) + 1) // 2
        self.optimizer.zero_grad()
        if self.job.device.type == "cuda":
            torch.cuda.empty_cache()
