"""The training loop of both starters: bfloat16 on one thread, resumable to the bit.

The batch of a step is a function of the step, so a checkpoint needs no generator's state; weights, optimiser, step
and curve lie in one safetensors file that is replaced at once. A kill loses what came after it.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tl_core.errors import UserError

Batches = Callable[[int], tuple[Tensor, Tensor]]  # of a step: inputs [B, C, H, W], labels int64 [B]
Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # outputs [B, D], labels: the loss, the share hit


@dataclass(frozen=True)
class Schedule:
    """AdamW under one cosine from a short linear warm-up to zero."""

    steps: int
    batch: int
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: int = 300
    clip: float = 1.0  # of the gradient's norm
    save_every: int = 200  # a multiple of log_every, so that no row of the curve spans a restart
    log_every: int = 100

    def __post_init__(self) -> None:
        if self.save_every % self.log_every:
            raise UserError(f"save_every {self.save_every} is no multiple of log_every {self.log_every}")

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        ramp = min(1.0, (step + 1) / self.warmup)
        return self.learning_rate * ramp * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass
class Progress:
    """Where the training stands. curve: a row per log_every steps: step, loss, share of labels hit, CPU seconds of the
    training itself (drawing the data not counted)."""

    step: int
    curve: list[dict[str, float]]


def train(
    network: nn.Module,
    objective: Objective,
    batches: Batches,
    schedule: Schedule,
    checkpoint: Path,
    identity: str,
) -> Progress:
    """Train `network` (inputs to outputs) in place, from `checkpoint` where there is one, to the schedule's end.

    identity: what else the run depends on, a JSON object. Raises UserError on a checkpoint of another identity or
    schedule.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    optimiser = torch.optim.AdamW(_groups(network, schedule.weight_decay), lr=0.0, fused=True)
    name = json.dumps({"schedule": asdict(schedule), "identity": identity}, sort_keys=True)
    progress = _restore(checkpoint, network, optimiser, name) if checkpoint.is_file() else Progress(0, [])
    began, loss_sum, hits = time.process_time(), 0.0, 0.0
    spent = progress.curve[-1]["seconds"] if progress.curve else 0.0
    while progress.step < schedule.steps:
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(progress.step)
        inputs, labels = batches(progress.step)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(inputs.contiguous(memory_format=torch.channels_last))
        loss, hit = objective(outputs.float(), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), schedule.clip)
        optimiser.step()
        progress.step += 1
        loss_sum += float(loss.detach()) / schedule.log_every
        hits += float(hit) / schedule.log_every
        if progress.step % schedule.log_every == 0:
            seconds = round(spent + time.process_time() - began, 1)
            row = {"step": progress.step, "loss": round(loss_sum, 4), "hits": round(hits, 4), "seconds": seconds}
            progress.curve.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            loss_sum = hits = 0.0
        if progress.step % schedule.save_every == 0 or progress.step == schedule.steps:
            _save(checkpoint, network, optimiser, progress, name)
    return progress


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Progress, dict[str, Any]]:
    """The network's tensors, the progress and the identity of a checkpoint."""
    with safe_open(path, "pt") as stored:
        facts = json.loads(stored.metadata()["progress"])
        identity = json.loads(json.loads(stored.metadata()["name"])["identity"])
        names = [name for name in stored.keys() if name.startswith("network.")]  # noqa: SIM118
        tensors = {name.removeprefix("network."): stored.get_tensor(name) for name in names}
    return tensors, Progress(**facts), identity


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for norms and biases."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _laid_out(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _save(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress, name: str) -> None:
    tensors = {f"network.{key}": value.contiguous() for key, value in network.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{key}": value.contiguous() for key, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"name": name, "progress": json.dumps(asdict(progress))})
    partial.replace(path)


def _settings(name: dict[str, Any]) -> dict[str, Any]:
    """All that a run's name holds, in one table."""
    settings: dict[str, Any] = {**json.loads(name["identity"]), **name["schedule"]}
    return settings


def _restore(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, name: str) -> Progress:
    with safe_open(path, "pt") as stored:
        if stored.metadata()["name"] != name:
            before, now = (_settings(json.loads(text)) for text in (stored.metadata()["name"], name))
            keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
            raise UserError(f"{path} is of another run: it differs in {', '.join(keys)}; remove it to begin anew")
        state: dict[int, dict[str, Tensor]] = {}
        for key in stored.keys():  # noqa: SIM118
            if key.startswith("optimiser."):
                _, number, field = key.split(".")
                state.setdefault(int(number), {})[field] = _laid_out(stored.get_tensor(key))
    tensors, progress, _ = read_checkpoint(path)
    network.load_state_dict(tensors)
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return progress
