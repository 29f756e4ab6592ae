"""The learning-rate range test on a problem whose best rate is known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tl_core.errors import UserError
from tl_core.training.find_lr import HIGHEST, LOWEST, find_lr, suggested
from tl_core.types import Prepared


class Quadratic:
    """Least squares under plain gradient descent: it diverges from a rate of 2 / curvature on."""

    def __init__(self, curvature: float, rates: Sequence[float] = (0.01, 0.1)) -> None:
        self.body, self.head = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.body.weight.fill_(3.0)
            self.head.weight.fill_(-2.0)
        self.curvature = curvature
        groups = [{"params": module.parameters(), "lr": lr} for module, lr in zip((self.body, self.head), rates)]
        self.optimizer = torch.optim.SGD(groups, momentum=0.5)
        self.seen: list[tuple[float, float, tuple[int, int]]] = []

    def step(self, prepared: Sequence[Prepared], y: Tensor, at: tuple[int, int]) -> float:
        first, second = self.optimizer.param_groups
        self.seen.append((first["lr"], second["lr"], at))
        loss = (
            0.5 * self.curvature * self.body.weight.square().sum()
            + 0.05 * self.curvature * self.head.weight.square().sum()
        )
        value = float(loss.detach())
        if not math.isfinite(value):
            return math.nan
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return value


def batches(n: int = 1000) -> Iterator[tuple[list[Prepared], Tensor]]:
    for _ in range(n):
        yield [], torch.zeros(1)


def test_the_rate_is_below_divergence_and_where_the_loss_falls() -> None:
    for curvature in (20.0, 1000.0):
        training = Quadratic(curvature)
        found = find_lr(training, batches(), [training.body, training.head], 0.01)
        assert 0.003 / curvature < found.lr < 2 / curvature
        assert found.lr in [rate for rate, _ in found.points]
        assert len(found.points) < 100, "it stopped once the loss broke out"


def test_weights_and_optimizer_are_as_they_were() -> None:
    training = Quadratic(1.0)
    training.step([], torch.zeros(1), (1, 0))  # momentum that must survive
    before = [training.body.weight.clone(), training.head.weight.clone()]
    momentum = training.optimizer.state_dict()["state"][0]["momentum_buffer"].clone()
    find_lr(training, batches(), [training.body, training.head], 0.01)
    assert torch.equal(training.body.weight, before[0])
    assert torch.equal(training.head.weight, before[1])
    assert torch.equal(training.optimizer.state_dict()["state"][0]["momentum_buffer"], momentum)
    assert [group["lr"] for group in training.optimizer.param_groups] == [0.01, 0.1]


def test_groups_keep_their_proportion_and_rates_rise_exponentially() -> None:
    training = Quadratic(1e-6)
    find_lr(training, batches(), [training.body, training.head], 0.01, steps=20)
    rates = np.array([first for first, _, _ in training.seen])
    assert len(rates) == 20
    assert rates[[0, -1]] == pytest.approx([LOWEST, HIGHEST])
    assert np.allclose(np.diff(np.log(rates)), np.log(HIGHEST / LOWEST) / 19, rtol=0.02)
    assert all(second == pytest.approx(10 * first) for first, second, _ in training.seen)
    assert [at for _, _, at in training.seen] == [(0, number) for number in range(20)]


def test_the_same_run_gives_the_same_rate() -> None:
    one, other = Quadratic(3.0), Quadratic(3.0)
    found = [find_lr(training, batches(), [training.body, training.head], 0.01) for training in (one, other)]
    assert found[0] == found[1]


def test_few_batches_are_enough_for_a_short_test() -> None:
    training = Quadratic(1.0)
    with pytest.raises(UserError, match=r"'tune.find_lr' can't be true: the loss breaks out after 4 updates"):
        find_lr(training, batches(4), [training.body, training.head], 0.01)


def test_a_loss_next_to_nothing_does_not_break_out_by_noise() -> None:
    """From the probe's weights the loss may be a thousandth, and four times that still next to nothing."""

    class Fitting(Quadratic):
        def step(self, prepared: Sequence[Prepared], y: Tensor, at: tuple[int, int]) -> float:
            return 0.001 if at[1] < 3 else 0.02 + 1e-4 * at[1]

    training = Fitting(1.0)
    found = find_lr(training, batches(), [training.body, training.head], 0.01)
    assert len(found.points) == 100


def test_what_a_curve_suggests() -> None:
    rates = [10.0 ** (-7 + k / 8) for k in range(50)]
    falls = [1 / (1 + math.exp(k - 25)) for k in range(40)] + [2.0] * 10
    assert suggested(list(zip(rates, falls))) == pytest.approx(rates[25])
    rises = [1.0 + 0.1 * k for k in range(50)]
    assert suggested(list(zip(rates, rises))) == pytest.approx(rates[0]), "it falls nowhere"
    noisy = np.array(falls) + np.random.default_rng(0).normal(0, 0.03, 50)
    assert rates[22] <= suggested(list(zip(rates, noisy.tolist()))) <= rates[28]


def test_facts_are_json() -> None:
    training = Quadratic(1.0)
    facts = find_lr(training, batches(), [training.body, training.head], 0.01).facts()
    assert facts["lr"] in [rate for rate, _ in facts["points"]]  # type: ignore[attr-defined]
