"""Pretraining of the audio starter: which patch is this, and what is it made of?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from samples.pretrain.audio.settings import Settings
from samples.pretrain.audio.sounds import Cuts, front_end, synthesise
from samples.pretrain.audio.synthesizer import descriptors, draw_patches, mixed
from samples.pretrain.trainer import train


class Pretext(nn.Module):
    """The starter's body with what only pretraining needs: one linear layer to patches and descriptors."""

    def __init__(self, config: dict[str, Any], outputs: int) -> None:
        super().__init__()
        import timm

        self.body = timm.create_model(config["architecture"], num_classes=0, **config["model_args"])
        self.head = nn.Linear(config["num_features"], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Log-mel patches [B, 1, frames, mels] to patch logits and descriptors [B, patches + D]."""
        outputs: Tensor = self.head(self.body(x))
        return outputs


def pretrain(settings: Settings, work: Path, starter: Path) -> None:
    """Train to the last step, from the last checkpoint in `work` where there is one."""
    schedule = settings.schedule()  # first of all: its faults show before minutes of work
    config = json.loads((starter / "config.json").read_text(encoding="utf-8"))
    key = settings.sounds_key(config["frontend"])
    sounds = synthesise(work / f"sounds-{key}", starter, settings.patches, settings.rounds, settings.seed)
    cuts = Cuts(sounds, front_end(starter))
    targets = descriptors(draw_patches(settings.patches, settings.seed))  # [patches, D]

    def objective(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits, described = outputs[:, : settings.patches], outputs[:, settings.patches :]
        loss = cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        loss = loss + settings.describe * (described - targets[labels]).square().mean()
        return loss, (logits.argmax(1) == labels).float().mean()

    def batch(step: int) -> tuple[Tensor, Tensor]:
        return cuts.draw(settings.batch, mixed(settings.seed, step))

    torch.manual_seed(settings.seed)
    network = Pretext(config, settings.patches + targets.shape[1])
    starting = {name: value for name, value in config.items() if name != "provenance"}
    identity = json.dumps(settings.facts() | {"sounds": key, "config": starting}, sort_keys=True)
    train(network, objective, batch, schedule, work / "checkpoint.safetensors", identity)
