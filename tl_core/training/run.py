"""The epochs of a training: judged on validation, the best kept, the state saved, ended where nothing is to gain."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tl_core.errors import UserError
from tl_core.progress import progress
from tl_core.selection.outcomes import Outcomes
from tl_core.training.average import put
from tl_core.training.job import decoded
from tl_core.training.loop import Training
from tl_core.training.plan import Plan
from tl_core.training.state import Saved, write_state
from tl_core.training.termination import Termination, termination_put_off
from tl_core.types import Prepared
from tl_core.watch import DEFAULT, watch_metric

SPREADS = 2.0
WEIGHINGS = 200  # of the validation rows
NAMED = 8  # samples that a message names at most
SAVING_SHARE = 0.1  # of the time: what the end of each epoch may be saved for


@dataclass
class Progress:
    """How far a training has come, as its saved state has it.

    epoch: the one that is under way, counted from 1; batch: steps of it that are done; loss: their sum over samples;
    history: a row for each finished epoch; top_epoch: the one with the best metric (ties: the lower loss); best_epoch:
    the one that is kept, the last that is not clearly worse than that; 0 where there is none yet; stopped: why it ended
    early for another reason than patience.
    """

    epoch: int = 1
    batch: int = 0
    loss: float = 0.0
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
        self.progress = Progress()
        self._training, self._plan, self.seen = training, plan, seen
        self._key, self._facts = key, facts
        self.said: dict[str, Tensor] = {}
        self._best: dict[str, Tensor] = {}
        self._saved_at, self._cost = time.monotonic(), 0.0  # seconds: when the state was saved, and what that took

    def resume(self, saved: Saved) -> None:
        """Go on from a saved state, with the networks as they were made for a new one."""
        training, tensors = self._training, saved.tensors
        self.progress = Progress(**saved.facts["progress"])
        training.at_once = saved.facts["at_once"]
        put(_under("live", tensors), training.live)
        self._best, self.said = _under("best", tensors), _under("said", tensors)
        if training.average is not None:
            training.average.updates = saved.facts["updates"]
            put(_under("average", tensors), training.average.tensors)
        if training.scaler.is_enabled():
            training.scaler.load_state_dict(saved.facts["scaler"])
        for number, parameter in enumerate(_parameters(training)):
            found = _under(f"optimizer.{number}", tensors)
            if found:
                training.optimizer.state[parameter] = {key: _like(value, parameter) for key, value in found.items()}

    def go(self) -> None:
        """Train until the epochs or the patience run out, then take the best epoch's weights.

        Raises UserError where the training diverges before any epoch has ended.
        """
        with termination_put_off() as termination:
            while not self._over() and not self._asked(termination):
                self._enter_stage()
                if self._train(termination):
                    self._judge()
                    self._save(self._affordable())
            self._save(termination.asked)
        if termination.asked:  # and a handler of somebody else's let us live
            raise SystemExit(128 + signal.SIGTERM)
        if self.progress.best_epoch == 0:
            raise UserError(str(self.progress.stopped))
        put(self._best, self._training.live)

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

    def _train(self, termination: Termination) -> bool:
        """Train the rest of the epoch; whether its end was reached."""
        now, training = self.progress, self._training
        tune, watched = training.job.config.tune, training.job.head_spec.watch
        shown = {f"val {watched}": f"{now.history[-1]['val']:.4f}"} if now.history else {}
        rows, label = len(training.job.train), f"epoch {now.epoch}/{training.epochs}"
        with (
            progress(rows, label, unit="sample", shown=training.processes.main) as bar,
            closing(training.epoch(now.epoch, now.batch)) as steps,
        ):
            for batch, prepared, loss in steps:
                if not math.isfinite(loss):
                    self._diverged(f"in epoch {now.epoch}, batch {now.batch + 1}", batch, prepared)
                    return False
                now.batch += 1
                now.loss += loss * len(batch)
                bar.set_postfix(loss=f"{loss:.4f}", **shown, refresh=False)
                bar.update(len(batch))
                if self._asked(termination):
                    return False
                self._save(time.monotonic() - self._saved_at >= 60 * tune.save_minutes)
        return True

    def _judge(self) -> None:
        """Look at the finished epoch, and keep its weights where they are the best so far."""
        now, training = self.progress, self._training
        job, spec = training.job, training.job.head_spec
        with training.average.swapped_in() if training.average is not None else nullcontext():
            said = self._look()
            value, loss = self._scores(said["val"], job.val)
            if not math.isfinite(loss):
                self._diverged(f"in epoch {now.epoch}, on the validation rows")
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
        now.epoch, now.batch, now.loss = now.epoch + 1, 0, 0.0
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

    def _diverged(self, where: str, rows: np.ndarray | None = None, prepared: Sequence[Prepared] = ()) -> None:
        """Stop, and say where and why."""
        tune = self._training.job.config.tune
        text = f"the training diverged {where}: the loss is not finite"
        infinite = [] if rows is None else _infinite(self._training.processes.share(rows), prepared)
        if infinite:
            text += f", nor is what {self._named(infinite)} decode to; take these samples out of the data"
        else:
            text += f" (samples {self._named(rows)})" if rows is not None else ""
            text += (
                f"; lower tune.lr (now {tune.lr:g}) and tune.head_lr (now {tune.head_rate:g}), or raise tune.warmup "
                f"(now {tune.warmup:g})"
            )
        self.progress.stopped = text

    def _named(self, rows: Sequence[int] | np.ndarray) -> str:
        names = [self._training.job.manifest.sample(int(row)).id for row in rows[:NAMED]]
        return ", ".join(names) + (f" and {len(rows) - NAMED} more" if len(rows) > NAMED else "")

    def _asked(self, termination: Termination) -> bool:
        """Whether any process has been asked to end: then all do so, at the same step."""
        termination.asked = self._training.processes.any(termination.asked)
        return termination.asked

    def _affordable(self) -> bool:
        """Whether saving takes a small part of the time, as far as one can tell."""
        return self._cost <= SAVING_SHARE * (time.monotonic() - self._saved_at)

    def _save(self, due: bool) -> None:
        """Save the state where it is time to; the main process does so for all, which hold the same."""
        training = self._training
        if not due or not training.processes.main:
            return
        started = time.monotonic()
        tensors = {f"live.{name}": tensor for name, tensor in training.live.items()}
        tensors.update({f"best.{name}": tensor for name, tensor in self._best.items()})
        tensors.update({f"said.{name}": tensor for name, tensor in self.said.items()})
        facts = {**self._facts, "progress": asdict(self.progress), "at_once": training.at_once}
        if training.average is not None:
            tensors.update({f"average.{name}": tensor for name, tensor in training.average.tensors.items()})
            facts["updates"] = training.average.updates
        if training.scaler.is_enabled():
            facts["scaler"] = training.scaler.state_dict()
        for number, parameter in enumerate(_parameters(training)):
            held = training.optimizer.state.get(parameter, {})
            tensors.update({f"optimizer.{number}.{key}": tensor for key, tensor in held.items()})
        write_state(training.job.state, self._key, facts, tensors)
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - started


def _parameters(training: Training) -> Iterator[Tensor]:
    """All that the optimizer moves, in an order that every run has."""
    for group in training.optimizer.param_groups:
        yield from group["params"]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix.`, by the rest of their names."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A tensor of the optimizer's as it was: where and how its parameter lies, but for the count of steps."""
    if value.ndim == 0 and parameter.ndim > 0:
        return value
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _infinite(rows: np.ndarray, prepared: Sequence[Prepared]) -> list[int]:
    """The rows of samples that hold values which are not finite."""
    return [
        int(row)
        for row, sample in zip(rows, prepared, strict=True)
        if not all(bool(value.isfinite().all()) for window in sample.windows for value in window.values())
    ]
