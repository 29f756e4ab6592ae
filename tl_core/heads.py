"""Linear heads for the three tasks; each modality's plugin offers them under its own name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tl_core.types import Head, HeadSpec, Targets, Task

METRICS: dict[Task, tuple[str, ...]] = {
    "multiclass": ("accuracy", "macro_f1", "balanced_accuracy", "auroc", "average_precision"),
    "multilabel": (
        "micro_f1", "macro_f1", "mean_average_precision", "auroc", "micro_precision", "micro_recall", "exact_match",
    ),
    "regression": ("r2", "mae", "rmse"),
}  # fmt: skip


class LinearHead(Head):
    """Standardisation by the training features' mean and scale, then one linear layer.

    mean, scale: buffers [D] (0 and 1 until set); weight [C, D] and bias [C] act on the standardised features.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, feature_dim: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("scale", torch.ones(feature_dim))
        self.linear = nn.Linear(feature_dim, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear((features - self.mean) / self.scale)  # type: ignore[no-any-return]


class MulticlassHead(LinearHead):
    """Softmax over the classes, cross-entropy."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets)

    def decode(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=-1)


class MultilabelHead(LinearHead):
    """One sigmoid per label, binary cross-entropy."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, targets)

    def decode(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()


class RegressionHead(LinearHead):
    """One value; squared error on targets scaled by the training targets' centre and spread (buffers)."""

    centre: Tensor
    spread: Tensor

    def __init__(self, feature_dim: int, outputs: int = 1) -> None:
        super().__init__(feature_dim, outputs)
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(logits.squeeze(-1), (targets - self.centre) / self.spread)

    def decode(self, logits: Tensor) -> Tensor:
        return logits.squeeze(-1) * self.spread + self.centre


_CLASSES: dict[Task, type[LinearHead]] = {
    "multiclass": MulticlassHead,
    "multilabel": MultilabelHead,
    "regression": RegressionHead,
}


def linear_head(modality: str, task: Task) -> HeadSpec:
    """The linear head for one task."""
    return next(spec for spec in linear_heads(modality) if spec.task == task)


def linear_heads(modality: str) -> list[HeadSpec]:
    """The linear head for each task, as a modality's plugin offers it."""

    def spec(task: Task) -> HeadSpec:
        def build(feature_dim: int, targets: Targets) -> Head:
            return _CLASSES[task](feature_dim, targets.outputs)

        return HeadSpec(
            name="linear",
            modality=modality,
            task=task,
            build=build,
            metrics=METRICS[task],
            watch=METRICS[task][0],
        )

    return [spec(task) for task in METRICS]
