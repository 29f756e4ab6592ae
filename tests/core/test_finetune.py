"""Fine-tuning on a small convolutional chain: what trains, what stays, what repeats."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from series import CPU, SPECS, Chain, Series, best, chain, history, job, settings, train, weights, write
from torch import Tensor, nn

from tl_core.errors import UserError
from tl_core.heads import LinearHead, RegressionHead
from tl_core.training import fit, predict_rows
from tl_core.types import (
    Backbone,
    HeadSpec,
    State,
    Task,
)  # fmt: skip
from tl_core.watch import watch_metric


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_learns_and_predicts(tmp_path: Path, task: Task) -> None:
    rows = write(tmp_path, task)
    fitted = train(rows, settings(epochs=16, patience=16, batch_size=16, head_lr=3e-3, train_from="all"))
    val, backbone = rows.rows("val"), fitted.backbone
    assert backbone is not None
    predictions = predict_rows(cast(Any, rows), val, Series(), backbone, fitted.head, CPU)
    np.testing.assert_allclose(predictions, fitted.said, atol=1e-3 if task == "regression" else 1e-5)
    reached = watch_metric(task, predictions, rows.labels[val])
    assert reached == pytest.approx(best(fitted)["val"], abs=1e-6)
    assert fitted.facts["validation"] == best(fitted)["val"]
    assert reached > 0.75
    assert watch_metric(task, fitted.said_seen, rows.labels[fitted.seen]) == best(fitted)["train"]
    assert set(fitted.seen) <= set(rows.rows("train"))
    assert not backbone.training
    assert not fitted.head.training
    assert not any(p.requires_grad for p in [*backbone.parameters(), *fitted.head.parameters()])


def test_two_runs_give_the_same_bytes_and_leave_torchs_generator_alone(tmp_path: Path) -> None:
    rows = write(tmp_path)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train(rows, settings())
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(2)
    second, other = train(rows, settings()), train(rows, settings(seed=1))
    assert first.facts == second.facts
    assert weights(first) == weights(second)
    assert weights(first) != weights(other)


@pytest.mark.parametrize(("train_from", "trained"), [(1, ("block", "pool")), (2, ("stem", "block", "pool"))])
def test_frozen_segments_keep_weights_and_statistics(tmp_path: Path, train_from: int, trained: tuple[str, ...]) -> None:
    before = {name: tensor.numpy().tobytes() for name, tensor in chain().state_dict().items()}
    fitted = train(write(tmp_path), settings(train_from=train_from))
    assert fitted.trained == trained
    after = weights(fitted)
    for name in before:
        changed = before[name] != after[name]
        assert changed == (name.split(".")[1] in trained), name


def test_frozen_segments_run_in_eval_mode_without_gradients(tmp_path: Path) -> None:
    backbone = chain()
    seen: list[tuple[bool, bool, bool]] = []

    def note(stem: nn.Module, inputs: Any, state: State) -> None:
        seen.append((backbone.segments["block"].training, stem.training, torch.is_grad_enabled()))

    backbone.segments["stem"].register_forward_hook(note)
    train(write(tmp_path), settings(epochs=1), backbone)
    assert (True, False, False) in seen
    assert not any(stem or (block and grad) for block, stem, grad in seen)


def test_gradual_unfreezes_from_the_top(tmp_path: Path) -> None:
    backbone = chain()
    seen: list[tuple[bool, bool]] = []
    backbone.segments["stem"].register_forward_hook(
        lambda stem, inputs, state: seen.append((backbone.segments["block"].training, stem.training))
    )
    fitted = train(write(tmp_path), settings(strategy="gradual", epochs=4, train_from="all", patience=1), backbone)
    assert len(history(fitted)) >= 3  # patience counts from the last stage on
    training = [stem for block, stem in seen if block]
    assert training == sorted(training)  # frozen first, then trained
    assert {False, True} == set(training)


def test_linear_head_is_standardised_by_the_training_embeddings(tmp_path: Path) -> None:
    rows = write(tmp_path, "regression")
    head = train(rows, settings(epochs=1)).head
    assert isinstance(head, RegressionHead)
    assert not torch.equal(head.mean, torch.zeros(12))
    y = rows.labels[rows.rows("train")]
    assert float(head.centre) == pytest.approx(y.mean())
    assert float(head.spread) == pytest.approx(y.std())


def test_lp_ft_starts_from_the_probe_of_the_training_rows(tmp_path: Path) -> None:
    rows = write(tmp_path)
    probe = fit(job(rows, settings(strategy="probe", refit=False, calibrate=False)))
    barely = train(rows, settings(strategy="lp_ft", epochs=1, lr=1e-9, head_lr=1e-9, weight_decay=0, calibrate=False))
    head = cast(LinearHead, barely.head)
    assert torch.allclose(head.linear.weight, cast(LinearHead, probe.head).linear.weight, atol=1e-6)
    np.testing.assert_allclose(barely.said, probe.said, atol=0.05)  # but for batch-norm's statistics
    assert probe.backbone is None
    assert probe.facts["validation"] == watch_metric("multiclass", probe.said, rows.labels[rows.rows("val")])


class Gain(nn.Module):
    """A learned factor per column, nearly nothing for the first: trained encoders hold such."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.weight.data[0] = 1e-33

    def forward(self, state: State) -> State:
        return {"x": state["x"] * self.weight}


@pytest.mark.parametrize("strategy", ["finetune", "lp_ft"])
def test_a_nearly_dead_column_does_not_drown_the_gradient(tmp_path: Path, strategy: str) -> None:
    backbone = chain()
    backbone.segments["gain"] = Gain(12)
    fitted = train(write(tmp_path), settings(strategy=strategy, epochs=1), backbone)
    assert math.isfinite(history(fitted)[0]["loss"])
    assert fitted.trained == ("gain",)


def test_best_epoch_is_restored_and_patience_ends_the_run(tmp_path: Path) -> None:
    rows = write(tmp_path)
    strict = replace(SPECS["multiclass"], watch="macro_f1")  # not the task's usual metric: taken at its word
    fitted = fit(job(rows, settings(epochs=30, patience=2, lr=0.1, head_lr=0.1)).replace(head_spec=strict))
    reached = fitted.facts["finetune"]["best_epoch"]
    assert len(history(fitted)) == reached + 2
    assert max(history(fitted), key=lambda h: (h["val"], -h["val_loss"]))["epoch"] == reached
    assert fitted.facts["finetune"]["stopped"] == "2 epochs with a clearly worse macro_f1 on validation than the best"
    val = rows.rows("val")
    assert fitted.backbone is not None
    predictions = predict_rows(cast(Any, rows), val, Series(), fitted.backbone, fitted.head, CPU)
    assert watch_metric("multiclass", predictions, rows.labels[val], "macro_f1") == best(fitted)["val"]


@pytest.mark.parametrize("train_rows", [1, 2, 9])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_batches_of_one_pass_through_batch_norm(tmp_path: Path, train_rows: int, batch_size: int) -> None:
    rows = write(tmp_path, train=train_rows, val=4)
    fitted = train(rows, settings(epochs=1, batch_size=batch_size, train_from="all"), chain(project=True))
    assert math.isfinite(history(fitted)[0]["loss"])


def test_augmentation_depends_on_seed_epoch_and_row_alone(tmp_path: Path) -> None:
    rows = write(tmp_path)
    wide, narrow, none = Series(), Series(), Series()
    train(rows, settings(epochs=2), loader=wide)
    train(rows, settings(epochs=2, batch_size=3), loader=narrow)
    train(rows, settings(epochs=2, augment=False), loader=none)
    assert len(wide.drawn) == 33  # training rows only
    assert {k: sorted(v) for k, v in wide.drawn.items()} == {k: sorted(v) for k, v in narrow.drawn.items()}
    assert all(len(set(factors)) == 2 for factors in wide.drawn.values())
    assert none.drawn == {}


def test_perturbation_is_for_raw_training_batches_alone(tmp_path: Path) -> None:
    class Perturbing(Chain):
        calls = 0

        def perturb(self, state: State, rng: np.random.Generator) -> State:
            self.calls += 1
            return {"x": state["x"] * float(rng.uniform(0.9, 1.1))}

    def perturbing() -> Perturbing:
        plain = chain()
        return Perturbing(list(plain.segments.items()), 12, plain.identity)

    rows, backbone, still = write(tmp_path), perturbing(), perturbing()
    train(rows, settings(epochs=1), backbone)
    assert backbone.calls >= 5 * 2  # five batches, of two widths
    train(rows, settings(epochs=1, augment=False), still)
    assert still.calls <= 1  # to see whether it does anything


@pytest.mark.parametrize("memory_batch", [1, 3, 8])
def test_fewer_rows_at_once_give_the_same_result(tmp_path: Path, memory_batch: int) -> None:
    """But for float, and for what looks at a batch as a whole: batch-norm and dropout."""
    rows = write(tmp_path)
    plain = {"update": "biases", "epochs": 2}
    whole = train(rows, settings(**plain), chain(dropout=0.0))
    parts = train(rows, settings(**plain, memory_batch=memory_batch), chain(dropout=0.0))
    assert parts.facts["finetune"]["memory_batch"] == memory_batch
    np.testing.assert_allclose(parts.said, whole.said, atol=1e-4)


def test_a_batch_that_memory_does_not_hold_is_halved(tmp_path: Path) -> None:
    def short(stem: nn.Module, inputs: Any) -> None:
        if len(inputs[0]["x"]) > 5:  # windows, of one width
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    rows, backbone = write(tmp_path), chain(dropout=0.0)
    backbone.segments["stem"].register_forward_pre_hook(short)
    fitted = train(rows, settings(update="biases", epochs=2), backbone)
    assert fitted.facts["finetune"]["memory_batch"] < 8
    whole = train(rows, settings(update="biases", epochs=2), chain(dropout=0.0))
    np.testing.assert_allclose(fitted.said, whole.said, atol=1e-4)


def test_rates_and_decay_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.optim.AdamW] = []
    plain = torch.optim.AdamW

    def record(groups: Any, **settings: Any) -> torch.optim.AdamW:
        made.append(plain(groups, **settings))
        return made[-1]

    monkeypatch.setattr(torch.optim, "AdamW", record)
    train(write(tmp_path), settings(epochs=1, weight_decay=0.3))
    groups = [(g["initial_lr"], g["weight_decay"], {p.ndim for p in g["params"]}) for g in made[0].param_groups]
    assert groups == [(1e-3, 0.3, {3}), (1e-3, 0.0, {1}), (1e-2, 0.3, {2}), (1e-2, 0.0, {1})]


def test_history_tells_rate_and_metrics(tmp_path: Path) -> None:
    told = history(train(write(tmp_path), settings(epochs=2, schedule="constant")))
    assert [list(row) for row in told] == [["epoch", "loss", "train", "val_loss", "val", "lr"]] * 2
    assert [row["lr"] for row in told] == [1e-3, 1e-3]


def test_divergence_names_place_samples_and_remedy(tmp_path: Path) -> None:
    rows = write(tmp_path)
    with pytest.raises(UserError) as caught:
        train(rows, settings(lr=1e30, head_lr=1e30, warmup=0))
    text = str(caught.value)
    assert text.startswith("the training diverged in epoch 1, batch 3: the loss is not finite (samples ")
    assert text.count(".npy") == 7
    assert text.endswith("; lower tune.lr (now 1e+30) and tune.head_lr (now 1e+30), or raise tune.warmup (now 0)")


def test_what_was_best_before_a_divergence_is_the_result(tmp_path: Path) -> None:
    class Poisoned(Series):
        """A variant that is not finite, from the third epoch on."""

        def augment(self, decoded: Any, rng: np.random.Generator) -> Any:
            many = super().augment(decoded, rng)
            return many * np.nan if any(len(factors) > 2 for factors in self.drawn.values()) else many

    fitted = train(write(tmp_path), settings(epochs=6), loader=Poisoned())
    facts = fitted.facts["finetune"]
    assert len(facts["history"]) == 2
    assert facts["stopped"].startswith(
        "the training diverged in epoch 3, batch 1: the loss is not finite, nor is what "
    )
    assert facts["stopped"].endswith(" decode to; take these samples out of the data")
    assert fitted.facts["validation"] == best(fitted)["val"]
    assert all(bool(p.isfinite().all()) for p in cast(Backbone, fitted.backbone).parameters())


def test_a_sample_that_no_longer_decodes_is_named(tmp_path: Path) -> None:
    rows = write(tmp_path)
    job(rows, settings()).features(rows.rows("train"))
    with pytest.raises(UserError, match=r"^7\.npy has changed since it was checked \(empty file\); run again$"):
        train(rows, settings(), loader=Series(unreadable=str(tmp_path / "7.npy")))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_only_classes_can_be_balanced(tmp_path: Path, task: Task) -> None:
    with pytest.raises(UserError) as caught:
        train(write(tmp_path, task), settings(balance=True))
    assert str(caught.value) == (
        f"config key 'tune.balance' can't be true where a backbone is trained and the task is {task}: it draws samples "
        "that have one class each; set it to false"
    )


@pytest.mark.parametrize(("train_rows", "val_rows"), [(0, 4), (4, 0)])
def test_rows_of_both_splits_are_needed(tmp_path: Path, train_rows: int, val_rows: int) -> None:
    with pytest.raises(ValueError, match="needs training and validation rows"):
        train(write(tmp_path, train=train_rows, val=val_rows), settings())


class Mlp(LinearHead):
    """A head with a hidden layer of its own behind the standardisation."""

    def __init__(self) -> None:
        super().__init__(12, 2)
        self.hidden = nn.Linear(2, 2)

    def forward(self, features: Tensor) -> Tensor:
        return self.hidden(torch.tanh(super().forward(features)))  # type: ignore[no-any-return]

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, targets)

    def decode(self, logits: Tensor) -> Tensor:
        return logits.softmax(dim=1)


def test_any_head_can_be_fine_tuned(tmp_path: Path) -> None:
    spec = HeadSpec("mlp", "series", "multiclass", lambda dim, targets: Mlp(), ("accuracy",), "accuracy")
    fitted = fit(job(write(tmp_path), settings()).replace(head_spec=spec))
    assert isinstance(fitted.head, Mlp)
    assert {row["epoch"] for row in history(fitted)} == {1, 2, 3}
