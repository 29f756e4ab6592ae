"""The probe: exact at every strength, chosen on validation, the same bytes every time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor, nn

from tl_core.errors import UserError
from tl_core.heads import LinearHead, RegressionHead, linear_heads
from tl_core.training import fit_probe
from tl_core.training.probe import ProbeFit
from tl_core.types import Head, HeadSpec, Targets, Task
from tl_core.watch import watch_metric

STRENGTHS = (100.0, 10.0, 1.0, 0.1)
SPECS: dict[Task, HeadSpec] = {spec.task: spec for spec in linear_heads("text")}


def classes(task: Task, n: int = 4) -> Targets:
    return Targets(task, tuple(f"c{i}" for i in range(n)) if task != "regression" else ())


def draw(task: Task, n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated features with an offset and a constant column, and noisy targets of four outputs."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(99))
    x = torch.randn(n, d, generator=g) @ mix + 5
    x[:, -1] = 3.0
    scores = x[:, :4] - 5 + math.sqrt(d) * torch.randn(n, 4, generator=g)
    if task == "multiclass":
        return x, scores.argmax(dim=1)
    return x, (scores > 0).float() if task == "multilabel" else 1000 + 7 * scores[:, 0]


def probe(task: Task, strengths: tuple[float, ...] = STRENGTHS, *, refit: bool = False, d: int = 12) -> ProbeFit:
    targets = classes(task)
    x, y = draw(task, 150, d)
    x_val, y_val = draw(task, 80, d, seed=1)
    return fit_probe(x, y, x_val, y_val, SPECS[task].build(d, targets), SPECS[task], targets, strengths, refit)


def linear(fit: ProbeFit) -> LinearHead:
    assert isinstance(fit.head, LinearHead)
    return fit.head


@pytest.mark.parametrize("d", [12, 200], ids=["more rows", "more features"])
@pytest.mark.parametrize("strength", [100.0, 1.0, 0.1])
@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_weights_are_scikit_learns_optimum(task: Task, strength: float, d: int) -> None:
    head = linear(probe(task, (strength,), d=d))
    x, y = draw(task, 150, d)
    scaled = ((x.double() - head.mean) / head.scale).numpy()
    logistic = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000)
    if task == "multiclass":
        logistic.fit(scaled, y.numpy())
        weight, bias = logistic.coef_, logistic.intercept_
    elif task == "multilabel":
        fits = [LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000).fit(scaled, c) for c in y.numpy().T]
        weight, bias = np.concatenate([f.coef_ for f in fits]), np.concatenate([f.intercept_ for f in fits])
    else:
        assert isinstance(head, RegressionHead)
        ridge = Ridge(alpha=strength / 2).fit(scaled, ((y - head.centre) / head.spread).double().numpy())
        weight, bias = ridge.coef_[None], np.array([ridge.intercept_])
    assert np.abs(head.linear.weight.detach().numpy() - weight).max() < 2e-3 * np.abs(weight).max()
    np.testing.assert_allclose(head.linear.bias.detach().numpy(), bias, atol=5e-3)


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
@pytest.mark.parametrize("refit", [False, True])
def test_two_runs_give_the_same_bytes(task: Task, refit: bool) -> None:
    first, second = probe(task, refit=refit), probe(task, refit=refit)
    assert first.path == second.path
    assert first.strength == second.strength
    for name, tensor in first.head.state_dict().items():
        assert tensor.numpy().tobytes() == second.head.state_dict()[name].numpy().tobytes(), name


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_path_goes_from_strong_to_weak_and_the_best_is_chosen(task: Task) -> None:
    fit = probe(task, (0.1, 100.0, 10.0, 10.0, 1.0))
    visited = [row["strength"] for row in fit.path]
    assert visited == [100.0, 10.0, 1.0, 0.1][: len(visited)]
    best = max(fit.path, key=lambda row: (row["val"], -row["val_loss"], row["strength"]))
    assert fit.strength == best["strength"]


def test_head_predicts_what_the_path_promised() -> None:
    fit = probe("multiclass")
    x_val, y_val = draw("multiclass", 80, 12, seed=1)
    reached = watch_metric("multiclass", fit.head.decode(fit.head(x_val)).detach().numpy(), y_val.numpy())
    promised = next(row["val"] for row in fit.path if row["strength"] == fit.strength)
    assert reached == pytest.approx(promised, abs=0.03)


def test_equal_accuracy_is_decided_by_the_loss_then_by_strength() -> None:
    targets = classes("multiclass", 2)
    x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
    y = torch.tensor([0, 0, 1, 1])
    spec = SPECS["multiclass"]
    # every strength separates the rows; the weakest is the surest and so has the lowest loss
    sure = fit_probe(x, y, x, y, spec.build(1, targets), spec, targets, (10.0, 1.0, 0.1), False)
    assert {row["val"] for row in sure.path} == {1.0}
    assert sure.strength == 0.1
    # features that say nothing: all strengths are alike, the strongest is taken
    blank = torch.ones(4, 1)
    alike = fit_probe(blank, y, blank, y, spec.build(1, targets), spec, targets, (10.0, 1.0, 0.1), False)
    assert alike.strength == 10.0
    assert linear(alike).scale.item() == 1.0


def test_path_ends_where_weaker_only_overfits() -> None:
    g = torch.Generator().manual_seed(0)
    x, x_val = torch.randn(40, 60, generator=g), torch.randn(400, 60, generator=g)
    y, y_val = (torch.randint(0, 2, (n,), generator=g) for n in (40, 400))
    targets, spec = classes("multiclass", 2), SPECS["multiclass"]
    strengths = tuple(float(10**k) for k in range(6, -8, -1))
    fit = fit_probe(x, y, x_val, y_val, spec.build(60, targets), spec, targets, strengths, False)
    assert 4 <= len(fit.path) < len(strengths)


def test_refit_takes_train_and_validation_and_measures_both() -> None:
    alone, both = linear(probe("multiclass", (10.0,))), linear(probe("multiclass", (10.0,), refit=True))
    x = torch.cat([draw("multiclass", 150, 12)[0], draw("multiclass", 80, 12, seed=1)[0]])
    torch.testing.assert_close(both.mean, x.mean(dim=0))
    torch.testing.assert_close(both.scale[:-1], x.std(dim=0, correction=0)[:-1])
    assert both.scale[-1] == 1.0
    assert not torch.allclose(alone.linear.weight, both.linear.weight)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_classes_absent_from_training_are_unlikely(task: Task) -> None:
    targets = classes(task, 6)
    x, y = draw(task, 60, 8)
    if task == "multilabel":
        y = torch.cat([y, torch.zeros(60, 1), torch.ones(60, 1)], dim=1)
    spec = SPECS[task]
    fit = fit_probe(x, y, x, y, spec.build(8, targets), spec, targets, STRENGTHS, True)
    assert all(torch.isfinite(tensor).all() for tensor in fit.head.state_dict().values())
    probabilities = fit.head.decode(fit.head(x)).detach()
    assert probabilities[:, 4].max() < 0.02
    if task == "multilabel":
        assert probabilities[:, 5].min() > 0.98


def test_one_class_and_one_row_do_not_crash() -> None:
    targets, spec = classes("multiclass", 3), SPECS["multiclass"]
    x, y = torch.ones(1, 5), torch.tensor([1])
    fit = fit_probe(x, y, torch.zeros(2, 5), torch.tensor([0, 1]), spec.build(5, targets), spec, targets, (1.0,), True)
    assert fit.head.decode(fit.head(x)).argmax().item() == 1


def test_metrics_that_are_better_when_lower_are_minimised() -> None:
    targets = classes("regression")
    spec = HeadSpec("linear", "text", "regression", SPECS["regression"].build, ("mae",), "mae", higher_is_better=False)
    x, y = draw("regression", 100, 6)
    fit = fit_probe(x, y, x, y, spec.build(6, targets), spec, targets, (1e5, 1.0), False)
    assert fit.strength == 1.0


@pytest.mark.parametrize("empty", ["train", "val"])
def test_rows_of_both_splits_are_needed(empty: str) -> None:
    targets, spec = classes("multiclass"), SPECS["multiclass"]
    x, y = draw("multiclass", 20, 5)
    train, val = ((x[:0], y[:0]), (x, y)) if empty == "train" else ((x, y), (x[:0], y[:0]))
    with pytest.raises(ValueError, match="needs training and validation rows"):
        fit_probe(*train, *val, spec.build(5, targets), spec, targets, STRENGTHS, True)


def test_features_that_are_not_finite_are_refused() -> None:
    targets, spec = classes("multiclass"), SPECS["multiclass"]
    x, y = draw("multiclass", 20, 5)
    x[3, 2] = float("nan")
    with pytest.raises(ValueError, match="1 of 20 feature rows hold NaN or infinity"):
        fit_probe(x, y, x, y, spec.build(5, targets), spec, targets, STRENGTHS, True)


def test_strengths_must_be_above_zero() -> None:
    with pytest.raises(UserError, match=r"'tune\.strengths' holds 0\.0, -1\.0; give at least one number, all above 0"):
        probe("multiclass", (1.0, 0.0, -1.0))


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_the_path_tells_how_the_training_rows_fare(task: Task) -> None:
    fit = probe(task, (1.0,))
    x, y = draw(task, 150, 12)
    told = watch_metric(task, fit.head.decode(fit.head(x)).detach().numpy(), y.numpy())
    assert fit.path[0]["train"] == pytest.approx(told, abs=0.05)  # the path is solved loosely


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_balance_weighs_classes_as_scikit_learn_does(task: Task) -> None:
    x, y = draw(task, 400, 12)
    if task == "multiclass":
        keep = (y != 0) | (torch.arange(400) % 5 == 0)
        x, y = x[keep], y[keep]
    targets, spec = classes(task), SPECS[task]
    fit = fit_probe(x, y, x, y, spec.build(12, targets), spec, targets, (1.0,), False, balance=True)
    head = linear(fit)
    scaled = ((x.double() - head.mean) / head.scale).numpy()
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000, class_weight="balanced")
    columns = [y.numpy()] if task == "multiclass" else list(y.numpy().T)
    weight = np.concatenate([model.fit(scaled, column).coef_ for column in columns])
    assert np.abs(head.linear.weight.detach().numpy() - weight).max() < 2e-3 * np.abs(weight).max()


def test_values_have_no_classes_to_balance() -> None:
    x, y = draw("regression", 30, 5)
    targets, spec = classes("regression"), SPECS["regression"]
    with pytest.raises(UserError, match=r"'tune\.balance' can't be true for regression.*set tune\.balance=false"):
        fit_probe(x, y, x, y, spec.build(5, targets), spec, targets, (1.0,), True, balance=True)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_calibration_divides_the_weights_and_changes_no_decision(task: Task) -> None:
    targets, spec = classes(task), SPECS[task]
    x, y = draw(task, 60, 12)
    x_val, y_val = draw(task, 400, 12, seed=1)

    def fit(calibrate: bool) -> ProbeFit:
        head = spec.build(12, targets)
        return fit_probe(x, y, x_val, y_val, head, spec, targets, (0.1,), False, calibrate=calibrate)

    plain, cooled = fit(False), fit(True)
    assert plain.temperature is None
    assert cooled.temperature is not None
    assert cooled.temperature > 1.2  # so weak a penalty overfits 60 rows
    torch.testing.assert_close(linear(cooled).linear.weight * cooled.temperature, linear(plain).linear.weight)
    torch.testing.assert_close(cooled.val_logits * cooled.temperature, plain.val_logits)
    with torch.no_grad():
        losses = [float(one.head.loss(one.head(x_val), y_val)) for one in (plain, cooled)]
    assert losses[1] < losses[0]


def test_regression_is_not_calibrated() -> None:
    x, y = draw("regression", 30, 5)
    targets, spec = classes("regression"), SPECS["regression"]
    fit = fit_probe(x, y, x, y, spec.build(5, targets), spec, targets, (1.0,), True, calibrate=True)
    assert fit.temperature is None


@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_large_problems_come_to_the_same_by_a_shorter_way(
    task: Task, refit: bool, balance: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if task == "regression" and balance:
        pytest.skip("values have no classes")
    targets, spec = classes(task), SPECS[task]
    x, y = draw(task, 600, 12)
    x_val, y_val = draw(task, 300, 12, seed=1)
    strengths = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)

    def fit() -> ProbeFit:
        head = spec.build(12, targets)
        return fit_probe(x, y, x_val, y_val, head, spec, targets, strengths, refit, balance=balance)

    small = fit()
    monkeypatch.setattr("tl_core.training.probe.LARGE", 0.0)
    large, again = fit(), fit()
    for name, tensor in large.head.state_dict().items():
        assert tensor.numpy().tobytes() == again.head.state_dict()[name].numpy().tobytes(), name
    visited = [row["strength"] for row in large.path]
    assert visited == sorted(visited, reverse=True)
    assert len(visited) <= len(strengths)
    best = max(large.path, key=lambda row: (row["val"], -row["val_loss"], row["strength"]))
    assert large.strength == best["strength"]
    with torch.no_grad():
        said = [watch_metric(task, one.head.decode(one.head(x_val)).numpy(), y_val.numpy()) for one in (small, large)]
    assert said[1] == pytest.approx(said[0], abs=0.02)


class Mlp(Head):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(5, 4)

    def forward(self, features: Tensor) -> Tensor:
        return self.net(features)  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, targets)

    def decode(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=1)


def test_a_head_that_is_not_linear_is_refused() -> None:
    x, y = draw("multiclass", 20, 5)
    with pytest.raises(
        UserError, match=r"the head Mlp can't be probed.*use tune\.head=linear, or tune\.strategy=finetune"
    ):
        fit_probe(x, y, x, y, Mlp(), SPECS["multiclass"], classes("multiclass"), STRENGTHS, True)


@pytest.mark.parametrize(
    ("task", "predictions", "truth", "name", "expected"),
    [
        ("multiclass", [[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]], [0, 1, 1], "", 2 / 3),
        ("multiclass", [[0.9, 0.1, 0], [0.4, 0.6, 0], [0.7, 0.3, 0]], [0, 1, 1], "macro_f1", 2 / 3),
        ("multilabel", [[0.9, 0.5], [0.8, 0.6]], [[1, 1], [0, 1]], "", 2 / 3),
        ("multilabel", [[0.9, 0.5], [0.8, 0.6]], [[1, 1], [0, 1]], "macro_f1", 2 / 3),
        ("multilabel", [[0.1], [0.2]], [[0], [0]], "", 1.0),
        ("regression", [1.0, 2.0, 3.0], [1.0, 2.0, 4.0], "", 1 - 1 / (14 / 3)),
        ("regression", [1.0, 2.0], [5.0, 5.0], "", 0.0),
        ("regression", [1.0, 2.0, 3.0], [1.0, 2.0, 4.0], "mae", 1 / 3),
        ("regression", [1.0, 2.0, 3.0], [1.0, 2.0, 4.0], "rmse", math.sqrt(1 / 3)),
    ],
)
def test_watch_metrics(task: Task, predictions: list[object], truth: list[object], name: str, expected: float) -> None:
    assert watch_metric(task, np.array(predictions), np.array(truth), name) == pytest.approx(expected)


def test_unknown_watch_metric_names_the_allowed() -> None:
    with pytest.raises(UserError, match="can't watch the metric 'auc' for multiclass; allowed: accuracy, macro_f1"):
        watch_metric("multiclass", np.ones((1, 2)), np.zeros(1), "auc")
