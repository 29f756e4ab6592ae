"""The steps of a training, taken with its state saved on the way: to go on where a run was killed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from tl_core.progress import progress
from tl_core.training.average import put
from tl_core.training.loop import Training
from tl_core.training.state import Saved, write_state
from tl_core.training.termination import Termination, termination_put_off
from tl_core.types import Prepared

NAMED = 8  # samples that a message names at most
SAVING_SHARE = 0.1  # of the time: what the end of each epoch may be saved for


@dataclass
class Position:
    """How far a training has come, as its saved state has it.

    epoch: the one that is under way, counted from 1; batch: steps of it that are done; loss: their sum over samples.
    """

    epoch: int = 1
    batch: int = 0
    loss: float = 0.0

    def next_epoch(self) -> None:
        """Stand before the first step of the epoch after this one."""
        self.epoch, self.batch, self.loss = self.epoch + 1, 0, 0.0


P = TypeVar("P", bound=Position)


class DivergedError(Exception):
    """A loss that is not finite; the text says where, on which samples, and what helps."""


class Checkpointed(Generic[P]):
    """A training whose state is saved in its job's folder, as often as `tune.save_minutes` says and where it is asked
    to end.

    key: of the saved state; at: the position, which moves with the steps; kept: gives the facts and the tensors that
    are to be saved besides the position and what training changes.
    """

    def __init__(
        self, training: Training, key: str, at: P, kept: Callable[[], tuple[dict[str, Any], dict[str, Tensor]]]
    ) -> None:
        self.at = at
        self._training, self._key, self._kept = training, key, kept
        self._termination = Termination()
        self._saved_at, self._cost = time.monotonic(), 0.0  # seconds: when the state was saved, and what that took

    def resume(self, saved: Saved) -> None:
        """Go on from a saved state, with the networks as they were made for a new one."""
        training, tensors = self._training, saved.tensors
        self.at = type(self.at)(**saved.facts["progress"])
        training.at_once = saved.facts["at_once"]
        put(under("live", tensors), training.live)
        if training.average is not None:
            training.average.updates = saved.facts["updates"]
            put(under("average", tensors), training.average.tensors)
        if training.scaler.is_enabled():
            training.scaler.load_state_dict(saved.facts["scaler"])
        for number, parameter in enumerate(_parameters(training)):
            found = under(f"optimizer.{number}", tensors)
            if found:
                training.optimizer.state[parameter] = {key: _like(value, parameter) for key, value in found.items()}

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C are put off while inside, and end the process once the state is saved.

        What is inside is to leave it where asked() says so.
        """
        with termination_put_off() as self._termination:
            yield
            self._save(self._termination.asked)
        if self._termination.asked:  # and a handler of somebody else's let us live
            raise SystemExit(128 + self._termination.by)

    def asked(self) -> bool:
        """Whether any process has been asked to end: then all do so, at the same step."""
        self._termination.asked = self._training.processes.any(self._termination.asked)
        return self._termination.asked

    def train(self, label: str = "", shown: Mapping[str, str] | None = None) -> bool:
        """Train the rest of the epoch; whether its end was reached.

        label: before the epoch in the line of progress; shown: after the loss. Raises DivergedError.
        """
        training, at = self._training, self.at
        save_every = 60 * training.job.config.tune.save_minutes
        with (
            progress(
                len(training.job.train),
                f"{label}epoch {at.epoch}/{training.epochs}",
                unit="sample",
                shown=training.processes.main,
            ) as bar,
            closing(training.epoch(at.epoch, at.batch)) as steps,
        ):
            for batch, prepared, loss in steps:
                if not math.isfinite(loss):
                    where = f"in epoch {at.epoch}, batch {at.batch + 1}"
                    raise DivergedError(divergence(training, where, batch, prepared))
                at.batch += 1
                at.loss += loss * len(batch)
                bar.set_postfix(loss=f"{loss:.4f}", **(shown or {}), refresh=False)
                bar.update(len(batch))
                if self.asked():
                    return False
                self._save(time.monotonic() - self._saved_at >= save_every)
        return True

    def save_if_cheap(self) -> None:
        """Save the state where that takes a small part of the time, as far as one can tell: at the end of an epoch."""
        self._save(self._cost <= SAVING_SHARE * (time.monotonic() - self._saved_at))

    def _save(self, due: bool) -> None:
        """Save the state where it is time to; the main process does so for all, which hold the same."""
        training = self._training
        if not due or not training.processes.main:
            return
        started = time.monotonic()
        facts, tensors = self._kept()
        facts |= {"progress": asdict(self.at), "at_once": training.at_once}
        tensors |= {f"live.{name}": tensor for name, tensor in training.live.items()}
        if training.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in training.average.tensors.items()}
            facts["updates"] = training.average.updates
        if training.scaler.is_enabled():
            facts["scaler"] = training.scaler.state_dict()
        for number, parameter in enumerate(_parameters(training)):
            held = training.optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{number}.{key}": tensor for key, tensor in held.items()}
        write_state(training.job.state, self._key, facts, tensors)
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - started


def divergence(
    training: Training, where: str, rows: np.ndarray | None = None, prepared: Sequence[Prepared] = ()
) -> str:
    """What there is to say of a loss that is not finite. rows: of the batch; prepared: this process's part of them."""
    tune, text = training.job.config.tune, f"{where}: the loss is not finite"
    infinite = [] if rows is None else _infinite(training.processes.share(rows), prepared)
    if infinite:
        return f"{text}, nor is what {_named(training, infinite)} decode to; take these samples out of the data"
    text += f" (samples {_named(training, rows)})" if rows is not None else ""
    learns = any(True for _ in training.head.parameters())
    rates = f"tune.lr (now {tune.lr:g})" + (f" and tune.head_lr (now {tune.head_rate:g})" if learns else "")
    return f"{text}; lower {rates}, or raise tune.warmup (now {tune.warmup:g})"


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix.`, by the rest of their names."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _parameters(training: Training) -> Iterator[Tensor]:
    """All that the optimizer moves, in an order that every run has."""
    for group in training.optimizer.param_groups:
        yield from group["params"]


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A tensor of the optimizer's as it was: where and how its parameter lies, but for the count of steps."""
    if value.ndim == 0 and parameter.ndim > 0:
        return value
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _named(training: Training, rows: Sequence[int] | np.ndarray) -> str:
    names = [training.job.manifest.sample(int(row)).id for row in rows[:NAMED]]
    return ", ".join(names) + (f" and {len(rows) - NAMED} more" if len(rows) > NAMED else "")


def _infinite(rows: np.ndarray, prepared: Sequence[Prepared]) -> list[int]:
    """The rows of samples that hold values which are not finite."""
    return [
        int(row)
        for row, sample in zip(rows, prepared, strict=True)
        if not all(bool(value.isfinite().all()) for window in sample.windows for value in window.values())
    ]
