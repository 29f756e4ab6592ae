"""What a pretraining is: every number that decides the starter's weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from samples.pretrain.image.formulas import VERSION
from samples.pretrain.trainer import Schedule


@dataclass(frozen=True)
class Settings:
    """The numbers of one pretraining; the network and its input size are the starter's config.json."""

    seed: int = 0
    classes: int = 500
    images: int = 96  # of each class
    side: int = 112  # pixels of the rendered images
    neck: int = 768  # width of a hidden layer between features and classes that is thrown away; 0: none
    smallest_crop: float = 0.4  # of the image's area
    grey: float = 0.15  # share of images shown without colour
    label_smoothing: float = 0.1
    steps: int = 8000
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 300
    log_every: int = 100
    save_every: int = 200

    def schedule(self) -> Schedule:
        """What the trainer needs of them."""
        return Schedule(
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            log_every=self.log_every,
            save_every=self.save_every,
        )

    def facts(self) -> dict[str, Any]:
        """All of them as a table."""
        return asdict(self)

    def images_key(self) -> str:
        """A short digest of what decides the images."""
        numbers = {"version": VERSION, "seed": self.seed, "classes": self.classes, "images": self.images}
        numbers["side"] = self.side
        return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()[:12]
