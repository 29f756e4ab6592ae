"""The temperature: the optimum of the likelihood, never worse than none, and kept from few rows' enthusiasm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tl_core.heads import MulticlassHead, RegressionHead
from tl_core.training.temperature import PRIOR_ROWS, folded, temperature
from tl_core.types import Task


def draw(task: Task, n: int, true: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that are `true` times too large for the targets drawn from them."""
    g = torch.Generator().manual_seed(seed)
    z = 1.5 * torch.randn(n, 5, generator=g)
    if task == "multiclass":
        return true * z, torch.multinomial(z.softmax(dim=1), 1, generator=g)[:, 0]
    return true * z, (torch.rand(n, 5, generator=g) < z.sigmoid()).float()


def loss(task: Task, z: Tensor, y: Tensor) -> float:
    if task == "multiclass":
        return float(F.cross_entropy(z.double(), y, reduction="sum"))
    return float(F.binary_cross_entropy_with_logits(z.double(), y.double(), reduction="none").mean(dim=1).sum())


@pytest.mark.parametrize("true", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_the_size_of_logits_is_found(task: Task, true: float) -> None:
    found = temperature(*draw(task, 3000, true), task)
    assert found == pytest.approx(true, rel=0.1)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_it_is_the_optimum(task: Task) -> None:
    z, y = draw(task, 200, 2.5)
    found = temperature(z, y, task)
    assert found is not None

    def objective(t: float) -> float:
        b = torch.tensor(1 / t).double()
        return loss(task, z / t, y) + PRIOR_ROWS * float(b - 1 - b.log())

    assert all(objective(found) < objective(found * factor) for factor in (0.98, 1.02))


@pytest.mark.parametrize("n", [1, 3, 10, 50])
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_likelihood_on_the_rows_is_never_worse(task: Task, n: int) -> None:
    for seed in range(20):
        z, y = draw(task, n, 0.3 + 0.3 * seed, seed)
        found = temperature(z, y, task)
        assert found is not None
        assert loss(task, z / found, y) <= loss(task, z, y) + 1e-9


def test_few_rows_that_are_all_right_do_not_make_the_head_sure() -> None:
    y = torch.arange(6) % 3
    z = 2.0 * F.one_hot(y, 3).float()
    few = temperature(z, y, "multiclass")
    many = temperature(z.repeat(200, 1), y.repeat(200), "multiclass")
    assert few is not None
    assert many is not None
    assert 0.7 < few < 1
    assert many < 0.4


def test_it_stays_in_its_range_and_is_1_without_rows() -> None:
    z, y = torch.tensor([[50.0, 0.0]]), torch.tensor([1])
    assert temperature(z.repeat(5000, 1), y.repeat(5000), "multiclass") == 20.0
    assert temperature(1e-3 * z.flip(1).repeat(50_000, 1), y.repeat(50_000), "multiclass") == 0.05
    assert temperature(z[:0], y[:0], "multiclass") == pytest.approx(1)


def test_the_same_logits_give_the_same_bits() -> None:
    z, y = draw("multiclass", 100, 2.0)
    assert temperature(z, y, "multiclass") == temperature(z.clone(), y.clone(), "multiclass")


def test_folded_divides_the_logits_and_leaves_the_head_alone() -> None:
    head = MulticlassHead(4, 3)
    torch.nn.init.normal_(head.linear.weight)
    torch.nn.init.normal_(head.linear.bias)
    x = torch.randn(7, 4)
    before = head(x)
    torch.testing.assert_close(folded(head, 2.5)(x), before / 2.5)
    assert torch.equal(head(x), before)


def test_regression_has_none() -> None:
    assert temperature(torch.randn(5, 1), torch.randn(5), "regression") is None
    with pytest.raises(ValueError, match="no temperature"):
        folded(RegressionHead(3), 2.0)


def test_logits_must_be_finite() -> None:
    with pytest.raises(ValueError, match="aren't finite"):
        temperature(torch.tensor([[float("nan"), 0.0]]), torch.tensor([0]), "multiclass")
