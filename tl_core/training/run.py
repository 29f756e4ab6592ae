"""The epochs of a fine-tuning: judged on validation, the best kept, ended where nothing is to gain."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tl_core.errors import UserError
from tl_core.selection.outcomes import Outcomes
from tl_core.training.average import put
from tl_core.training.checkpointed import Checkpointed, DivergedError, Position, divergence, under
from tl_core.training.job import decoded
from tl_core.training.loop import Training
from tl_core.training.plan import Plan
from tl_core.training.state import Saved
from tl_core.watch import DEFAULT, watch_metric

SPREADS = 2.0
WEIGHINGS = 200  # of the validation rows


@dataclass
class Progress(Position):
    """How far a fine-tuning has come.

    history: a row for each finished epoch; top_epoch: the one with the best metric (ties: the lower loss); best_epoch:
    the one that is kept, the last that is not clearly worse than that; 0 where there is none yet; stopped: why it ended
    early for another reason than patience.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    top_epoch: int = 0
    best_epoch: int = 0
    stopped: str | None = None


def clearly_worse(own: Outcomes, top: Outcomes, seed: int) -> bool:
    """Whether an epoch is behind the top one by more than SPREADS standard errors of their difference.

    Where it is not, the later weights are the better bet: the learning rate has come down further (the rule of one
    standard error, Breiman et al. 1984; two, since the top is the luckiest of many). A few validation rows tell hardly
    any epochs apart. own, top: outcomes of the same rows, which are weighed at random, alike for both.
    """
    weights = np.random.default_rng(seed).standard_gamma(1.0, (WEIGHINGS, len(own)))
    spread = float(np.std(top.metric(weights) - own.metric(weights)))
    return float(top.metric() - own.metric()) > SPREADS * spread


class Run:
    """A training on its way through the epochs.

    key: of the saved state; facts: to be saved with it; seen: training rows that are looked at along with validation;
    said: logits of the best epoch, of the rows `val` and `seen`, and of the `top` one, of the validation rows.
    """

    def __init__(self, training: Training, plan: Plan, seen: np.ndarray, key: str, facts: dict[str, Any]) -> None:
        self._training, self._plan, self.seen, self._facts = training, plan, seen, facts
        self._steps = Checkpointed(training, key, Progress(), self._kept)
        self.said: dict[str, Tensor] = {}
        self._best: dict[str, Tensor] = {}

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        return self._steps.at

    def resume(self, saved: Saved) -> None:
        """Go on from a saved state, with the networks as they were made for a new one."""
        self._steps.resume(saved)
        self._best, self.said = under("best", saved.tensors), under("said", saved.tensors)

    def go(self) -> None:
        """Train until the epochs or the patience run out, then take the best epoch's weights.

        Raises UserError where the training diverges before any epoch has ended.
        """
        with self._steps.under_way():
            while not self._over() and not self._steps.asked():
                self._enter_stage()
                if self._train():
                    self._judge()
                    self._steps.save_if_cheap()
        if self.progress.best_epoch == 0:
            raise UserError(str(self.progress.stopped))
        put(self._best, self._training.live)

    def _kept(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What is saved of the epochs that are judged."""
        tensors = {f"best.{name}": tensor for name, tensor in self._best.items()}
        return dict(self._facts), tensors | {f"said.{name}": tensor for name, tensor in self.said.items()}

    def _over(self) -> bool:
        now, tune = self.progress, self._training.job.config.tune
        if now.stopped is not None or now.epoch > self._training.epochs:
            return True
        last = self._first_epoch(len(self._plan.stages) - 1)
        return now.epoch - 1 - max(now.best_epoch, last - 1) >= tune.patience

    def _first_epoch(self, stage: int) -> int:
        """The epoch that a stage begins with, counted from 1."""
        return 1 + -(-stage * self._training.epochs // len(self._plan.stages))

    def _enter_stage(self) -> None:
        stages = range(len(self._plan.stages))
        self._training.trained.enter_stage(max(s for s in stages if self._first_epoch(s) <= self.progress.epoch))

    def _train(self) -> bool:
        """Train the rest of the epoch; whether its end was reached."""
        now, watched = self.progress, self._training.job.head_spec.watch
        try:
            return self._steps.train(shown={f"val {watched}": f"{now.history[-1]['val']:.4f}"} if now.history else {})
        except DivergedError as found:
            now.stopped = f"the training diverged {found}"
            return False

    def _judge(self) -> None:
        """Look at the finished epoch, and keep its weights where they are the best so far."""
        now, training = self.progress, self._training
        job, spec = training.job, training.job.head_spec
        with training.average.swapped_in() if training.average is not None else nullcontext():
            said = self._look()
            value, loss = self._scores(said["val"], job.val)
            if not math.isfinite(loss):
                where = f"in epoch {now.epoch}, on the validation rows"
                now.stopped = f"the training diverged {divergence(training, where)}"
                return
            train, _ = self._scores(said["seen"], self.seen)
            row = {
                "epoch": now.epoch,
                "loss": now.loss / len(job.train),
                "train": train,
                "val_loss": loss,
                "val": value,
            }
            lr = training.lr * training.share(now.epoch * training.epoch_steps - 1)
            now.history.append({**row, "lr": lr})

            def rank(epoch: int) -> tuple[float, float]:
                found = now.history[epoch - 1]
                return (found["val"] if spec.higher_is_better else -found["val"], -found["val_loss"])

            if now.top_epoch == 0 or rank(now.epoch) > rank(now.top_epoch):
                now.top_epoch, self.said["top"] = now.epoch, said["val"]
            if not self._clearly_worse(said["val"]):
                now.best_epoch, self.said = now.epoch, {**self.said, **said}
                self._best = {name: tensor.detach().cpu().clone() for name, tensor in training.live.items()}
        now.next_epoch()
        if job.judged is not None:
            job.judged(now.history)

    def _clearly_worse(self, logits: Tensor) -> bool:
        """Whether this epoch is clearly_worse() than the top one.

        A metric that the head watches instead of the task's usual one is taken at its word.
        """
        now, job, head = self.progress, self._training.job, self._training.head
        if now.top_epoch == now.epoch:
            return False
        if job.head_spec.watch != DEFAULT[job.head_spec.task]:
            return True
        truth = job.targets(job.val).numpy()
        own, top = (Outcomes.of(job.head_spec.task, decoded(head, said), truth) for said in (logits, self.said["top"]))
        return clearly_worse(own, top, job.config.seed)

    def look(self) -> None:
        """Take what the model says now for what it says."""
        self.said = {**self.said, **self._look()}

    def _look(self) -> dict[str, Tensor]:
        training = self._training
        return {"val": training.logits(training.job.val), "seen": training.logits(self.seen)}

    def _scores(self, logits: Tensor, rows: np.ndarray) -> tuple[float, float]:
        """The watched metric and the mean loss of what was said of rows."""
        job, head = self._training.job, self._training.head
        y = job.targets(rows)
        value = watch_metric(job.head_spec.task, decoded(head, logits), y.numpy(), job.head_spec.watch)
        with torch.no_grad():
            return value, float(head.loss(logits.to(job.device), y.to(job.device)))
