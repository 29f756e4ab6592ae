"""What a pretraining is: every number that decides the starter's weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from samples.pretrain.audio.synthesizer import VERSION
from samples.pretrain.trainer import Schedule


@dataclass(frozen=True)
class Settings:
    """The numbers of one pretraining; the front end and the network are the starter's config.json."""

    seed: int = 1
    patches: int = 2048  # classes
    rounds: int = 24  # instances of each
    describe: float = 4.0  # weight of the descriptors' squared error beside the cross-entropy
    label_smoothing: float = 0.1
    steps: int = 14000
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: int = 200
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

    def sounds_key(self, front_end: dict[str, Any]) -> str:
        """A short digest of what decides the sounds; more rounds add to the same ones."""
        text = json.dumps([VERSION, self.seed, self.patches, front_end], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
