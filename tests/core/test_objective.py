"""The loss of a batch: smoothed targets and mixed samples, and the heads that can't have them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tl_core.config import TuneConfig
from tl_core.errors import UserError
from tl_core.heads import MulticlassHead, MultilabelHead, RegressionHead
from tl_core.training.mixing import Mixed
from tl_core.training.objective import Objective
from tl_core.types import Targets

CLASSES = Targets("multiclass", ("a", "b", "c"))
LABELS = Targets("multilabel", ("a", "b", "c"))
NUMBERS = Targets("regression")
LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


class Gathering(MulticlassHead):
    """A loss that wants indices."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return -logits.log_softmax(dim=-1).gather(1, targets[:, None]).mean()


class Misreading(MulticlassHead):
    """A loss that takes a matrix for something else, without a complaint."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return super().loss(logits, targets.argmin(dim=-1) if targets.ndim == 2 else targets)


def tune(**values: float) -> TuneConfig:
    return TuneConfig.model_validate(values)


def test_without_choices_it_is_the_heads_loss() -> None:
    y = torch.tensor([0, 2, 1, 1])
    loss = Objective(Gathering(2, 3), CLASSES, tune())(LOGITS, y)
    assert torch.equal(loss, Gathering(2, 3).loss(LOGITS, y))


def test_smoothing_is_that_of_torch() -> None:
    y = torch.tensor([0, 2, 1, 1])
    loss = Objective(MulticlassHead(2, 3), CLASSES, tune(label_smoothing=0.2))(LOGITS, y)
    torch.testing.assert_close(loss, F.cross_entropy(LOGITS, y, label_smoothing=0.2))


def test_smoothing_of_labels_goes_to_a_half() -> None:
    y = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
    loss = Objective(MultilabelHead(2, 3), LABELS, tune(label_smoothing=0.2))(LOGITS, y)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(LOGITS, y * 0.8 + 0.1))


def test_mixed_samples_answer_to_both_targets() -> None:
    y, mixed = torch.tensor([0, 2, 1, 1]), Mixed(torch.tensor([1, 0, 3, 2]), 0.75)
    targets = 0.75 * F.one_hot(y, 3) + 0.25 * F.one_hot(y[mixed.order], 3)
    torch.testing.assert_close(
        Objective(Gathering(2, 3), CLASSES, tune())(LOGITS, y, mixed), F.cross_entropy(LOGITS, targets)
    )
    soft = targets * 0.9 + 0.1 / 3
    smoothed = Objective(MulticlassHead(2, 3), CLASSES, tune(label_smoothing=0.1))
    torch.testing.assert_close(smoothed(LOGITS, y, mixed), F.cross_entropy(LOGITS, soft))


def test_mixed_numbers_have_the_gradient_of_the_mixed_target() -> None:
    y, mixed = torch.tensor([0.0, 2, 1, 5]), Mixed(torch.tensor([3, 2, 1, 0]), 0.3)
    head = RegressionHead(2)
    logits = LOGITS[:, :1].clone().requires_grad_()
    (found,) = torch.autograd.grad(Objective(head, NUMBERS, tune())(logits, y, mixed), logits)
    (expected,) = torch.autograd.grad(head.loss(logits, 0.3 * y + 0.7 * y[mixed.order]), logits)
    torch.testing.assert_close(found, expected)


def test_numbers_are_not_smoothed() -> None:
    with pytest.raises(UserError) as caught:
        Objective(RegressionHead(2), NUMBERS, tune(label_smoothing=0.1))
    assert str(caught.value) == (
        "config key 'tune.label_smoothing' can't be 0.1: the task is regression, and a number has no other classes; "
        "set it to 0"
    )


@pytest.mark.parametrize("kind", [Gathering, Misreading])
def test_a_head_must_take_probabilities_to_be_smoothed(kind: type[MulticlassHead]) -> None:
    with pytest.raises(UserError) as caught:
        Objective(kind(2, 3), CLASSES, tune(label_smoothing=0.1))
    assert str(caught.value) == (
        f"config key 'tune.label_smoothing' can't be 0.1: the loss of the head {kind.__name__} takes no class "
        "probabilities; set it to 0, or use tune.head=linear"
    )
