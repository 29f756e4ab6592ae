"""One fit: everything it takes, and everything it leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from tl_core.config import RunConfig
from tl_core.extraction import features
from tl_core.store import FeatureStore, Space
from tl_core.types import Backbone, BackboneSpec, Head, HeadSpec, Loader, Targets

if TYPE_CHECKING:
    from tl_core.manifest import Manifest
    from tl_core.training.start import Start


Judge = Callable[[Sequence[Mapping[str, Any]]], None]


@dataclass(frozen=True)
class Job:
    """What a fit is given: rows of a manifest, a backbone, a head and the settings.

    train, val: manifest rows, int64; device: where training runs; space: where the embeddings of the pretrained
    backbone lie in the store; state: a folder of this fit alone, for what a killed run goes on with; judged: is shown
    the history after each epoch of fine-tuning, and may end it by an exception; start: the model that fine-tuning goes
    on from instead of the pretrained weights.
    """

    manifest: Manifest
    train: np.ndarray
    val: np.ndarray
    loader: Loader
    spec: BackboneSpec
    head_spec: HeadSpec
    config: RunConfig
    device: torch.device
    space: Space
    store: FeatureStore
    state: Path
    judged: Judge | None = None
    start: Start | None = None

    def features(self, rows: np.ndarray) -> Tensor:
        """The pretrained backbone's embeddings of manifest rows from the store, float32 [N, D] on the CPU.

        The backbone is built only where the store has lost rows.
        """
        found = features(
            self.manifest,
            rows,
            self.loader,
            self.spec.build,
            self.space,
            self.store,
            device=self.config.extract.device,
            engine=self.config.extract.engine,
        )
        return torch.from_numpy(found)

    def targets(self, rows: np.ndarray) -> Tensor:
        """Targets of manifest rows as the head's loss takes them, on the CPU."""
        return torch.from_numpy(self.manifest.target_array(rows))

    def head(self, feature_dim: int) -> Head:
        """A new head for embeddings of this width, its first weights drawn by the seed where it draws any."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            return self.head_spec.build(feature_dim, self.manifest.targets)

    @property
    def task(self) -> Targets:
        """What the labels look like."""
        return self.manifest.targets

    def replace(self, **changes: Any) -> Self:
        """The same job but for these fields."""
        return dataclasses.replace(self, **changes)

    def tuned(self, **changes: Any) -> Self:
        """The same job but for these keys of `config.tune`."""
        tune = self.config.tune.model_copy(update=changes)
        return self.replace(config=self.config.model_copy(update={"tune": tune}))


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves: the model, the facts for tune.json, and what it says of the validation rows.

    backbone: None where it is the pretrained one as it was; trained: names of the segments that changed; said: decoded
    predictions of job.val as `watch_metric` takes them. seen, said_seen: the training rows that the model was asked
    about as well, and what it said.
    """

    head: Head
    backbone: Backbone | None
    trained: tuple[str, ...]
    facts: dict[str, Any]
    said: np.ndarray
    seen: np.ndarray
    said_seen: np.ndarray


@torch.no_grad()
def decoded(head: Head, logits: Tensor) -> np.ndarray:
    """Logits [N, C] as predictions that `watch_metric` takes, float32."""
    device = next(head.parameters()).device
    said: np.ndarray = head.decode(logits.to(device)).float().cpu().numpy()
    return said


def fit(job: Job) -> Fitted:
    """Fit by `tune.strategy`: the probe on stored embeddings, or fine-tuning.

    Raises UserError on settings that make no sense together; ValueError without training or validation rows, and where
    the strategy is `auto`, which is a decision between fits.
    """
    from tl_core.training.contrastive import contrastive
    from tl_core.training.finetune import finetune
    from tl_core.training.probe_job import probe

    strategy = job.config.tune.strategy
    if strategy == "auto":
        raise ValueError("tune.strategy is auto: decide first which strategy is fitted")
    if len(job.train) == 0 or len(job.val) == 0:
        raise ValueError(f"a fit needs training and validation rows; got {len(job.train)} and {len(job.val)}")
    if strategy == "contrastive":
        return contrastive(job)
    return probe(job) if strategy == "probe" else finetune(job)
