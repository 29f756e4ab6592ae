"""Pretraining of the image starter: which formula drew this image?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from samples.pretrain.image.augment import augmented
from samples.pretrain.image.cache import rendered
from samples.pretrain.image.settings import Settings
from samples.pretrain.trainer import train

_BATCHES, _AUGMENTATION = 1, 2  # streams of random numbers


class Pretext(nn.Module):
    """The starter's body with what only pretraining needs: a neck, so that features stay general, and the classes."""

    def __init__(self, config: dict[str, Any], neck: int, classes: int) -> None:
        super().__init__()
        import timm

        self.body = timm.create_model(config["architecture"], num_classes=0, **config["model_args"])
        width = config["num_features"]
        hidden = [nn.Linear(width, neck, bias=False), nn.BatchNorm1d(neck), nn.ReLU()] if neck else []
        self.head = nn.Sequential(*hidden, nn.Linear(neck or width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] to logits [B, classes]."""
        logits: Tensor = self.head(self.body(x))
        return logits


def pretrain(settings: Settings, work: Path, starter: Path) -> None:
    """Train to the last step, from the last checkpoint in `work` where there is one."""
    schedule = settings.schedule()  # first of all: its faults show before minutes of work
    config = json.loads((starter / "config.json").read_text(encoding="utf-8"))
    cfg = config["pretrained_cfg"]
    images = rendered(settings, work / f"images-{settings.images_key()}.npy")

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = rows_of(step, len(images), settings)
        rng = np.random.default_rng([settings.seed, _AUGMENTATION, step])
        x = augmented(images[rows], cfg["input_size"][1], cfg["mean"], cfg["std"], settings, rng)
        return x, torch.from_numpy(rows // settings.images)

    def objective(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        loss = cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        return loss, (logits.argmax(1) == labels).float().mean()

    torch.manual_seed(settings.seed)
    network = Pretext(config, settings.neck, settings.classes)
    starting = {key: value for key, value in config.items() if key != "provenance"}
    facts = settings.facts() | {"drawn": settings.images_key(), "config": starting}
    identity = json.dumps(facts, sort_keys=True)
    train(network, objective, batch, schedule, work / "checkpoint.safetensors", identity)


def rows_of(step: int, total: int, settings: Settings) -> np.ndarray:
    """The images of a step, sorted by class: each epoch deals all of them in an order of its own."""
    epoch, place = divmod(step, total // settings.batch)
    order = np.random.default_rng([settings.seed, _BATCHES, epoch]).permutation(total)
    return np.sort(order[place * settings.batch : (place + 1) * settings.batch])
