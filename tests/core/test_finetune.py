"""Fine-tuning on a small convolutional chain: what trains, what stays, what repeats."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tl_core.config import RunConfig, validate
from tl_core.digests import file_digest
from tl_core.errors import DecodeError, UserError
from tl_core.heads import LinearHead, RegressionHead, linear_heads
from tl_core.store import FeatureStore, Space
from tl_core.training import Fitted, Job, fit, predict_rows
from tl_core.types import (
    Backbone,
    BackboneSpec,
    HeadSpec,
    Identity,
    Loader,
    Prepared,
    Sample,
    Source,
    State,
    Targets,
    Task,
)  # fmt: skip
from tl_core.watch import watch_metric

SPECS: dict[Task, HeadSpec] = {spec.task: spec for spec in linear_heads("series")}
CPU = torch.device("cpu")


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, 5, padding=2)
        self.norm = nn.BatchNorm1d(outputs)
        self.drop = nn.Dropout(dropout)

    def forward(self, state: State) -> State:
        return {"x": self.drop(torch.relu(self.norm(self.conv(state["x"]))))}


class Pool(nn.Module):
    def forward(self, state: State) -> State:
        return {"x": state["x"].mean(dim=-1)}


class Project(nn.Module):
    """Batch-norm over plain rows, which a batch of one has no statistics for."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, state: State) -> State:
        return {"x": self.norm(state["x"])}


class Chain(Backbone):
    """Series in windows of 32 or 48 values."""

    def prepare(self, decoded: Any) -> Prepared:
        parts = np.split(decoded, range(48, len(decoded), 48))
        return Prepared(tuple({"x": torch.from_numpy(part).float()} for part in parts))

    def bucket(self, window: State) -> int:
        return 32 if len(window["x"]) <= 32 else 48

    def collate(self, windows: Sequence[State]) -> State:
        width = self.bucket(windows[0])
        return {"x": torch.stack([nn.functional.pad(w["x"], (0, width - len(w["x"]))) for w in windows]).unsqueeze(1)}

    def batch_size(self, bucket: int) -> int:
        return 8


def chain(project: bool = False, dropout: float = 0.1) -> Chain:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        segments: list[tuple[str, nn.Module]] = [
            ("stem", Block(1, 6, dropout)),
            ("block", Block(6, 12, dropout)),
            ("pool", Pool()),
        ]
        if project:
            segments.append(("project", Project(12)))
        backbone = Chain(segments, 12, Identity("0" * 64, {}, "chain"))
    backbone.requires_grad_(False)
    return backbone.eval()


HEADER = threading.Lock()  # Python 3.11's parser, which NumPy reads headers by, is not safe in threads


class Series(Loader):
    modality = "series"
    extensions = frozenset({".npy"})

    def __init__(self, unreadable: str = "") -> None:
        self.unreadable = unreadable
        self.drawn: dict[str, list[float]] = {}

    def decode(self, source: Source) -> np.ndarray:
        if str(source) == self.unreadable:
            raise DecodeError("empty file")
        with HEADER:
            return cast(np.ndarray, np.load(source))

    def augment(self, decoded: Any, rng: np.random.Generator) -> Any:
        factor = rng.uniform(0.8, 1.2)
        self.drawn.setdefault(f"{decoded[0]:.6f}", []).append(factor)
        return decoded * factor

    def render(self, source: Source) -> str:
        return ""


@dataclass
class Rows:
    """The part of a manifest that training reads."""

    folder: Path
    task: Task
    split: list[str]
    labels: np.ndarray

    @property
    def targets(self) -> Targets:
        return Targets(self.task, ("slow", "fast") if self.task != "regression" else ())

    data_version = "v1"

    def digests(self, rows: np.ndarray) -> list[str]:
        return [file_digest(self.folder / f"{row}.npy") for row in rows]

    def samples(self, rows: np.ndarray) -> Iterator[Sample]:
        return (self.sample(int(row)) for row in rows)

    def rows(self, split: str | None = None) -> np.ndarray:
        return np.flatnonzero([split in (None, s) for s in self.split])

    def sample(self, row: int) -> Sample:
        assert self.split[row] != "test", "training read a test row"
        path = self.folder / f"{row}.npy"
        return Sample(row, path.name, file_digest(path), path, None, self.split[row])

    def target_array(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.labels[rows])


def write(folder: Path, task: Task = "multiclass", train: int = 33, val: int = 16) -> Rows:
    rng = np.random.default_rng(0)
    split = ["train"] * train + ["val"] * val + ["test"] * 3
    y = np.arange(len(split)) % 2
    for row, fast in enumerate(y):
        length = (30, 40, 100)[row % 3]
        t = np.arange(length) * (0.9 if fast else 0.3)
        np.save(folder / f"{row}.npy", np.sin(t + rng.uniform(0, 6)) + 0.2 * rng.normal(size=length))
    labels: dict[Task, np.ndarray] = {
        "multiclass": y,
        "multilabel": np.eye(2, dtype=np.float32)[y],
        "regression": (500 + 10 * y).astype(np.float32),
    }
    return Rows(folder, task, split, labels[task])


def settings(seed: int = 0, **tune: Any) -> RunConfig:
    small = {"strategy": "finetune", "epochs": 3, "batch_size": 8, "lr": 1e-3, "head_lr": 1e-2, "train_from": 1}
    extract = {"device": "cpu", "engine": "torch", "precision": "float32"}
    plain = {"precision": "float32", "batch_norm": "update"}
    return validate({"seed": seed, "extract": extract, "tune": {**plain, **small, **tune}})


def job(rows: Rows, config: RunConfig, backbone: Backbone | None = None, loader: Loader | None = None) -> Job:
    """A fit of a chain that is built once: what the training did to it shows."""
    built = backbone or chain()
    spec = BackboneSpec("chain", "series", "folder", "nowhere", lambda spec, seed: built)
    return Job(
        manifest=cast(Any, rows),
        train=rows.rows("train"),
        val=rows.rows("val"),
        loader=loader or Series(),
        spec=spec,
        head_spec=SPECS[rows.task],
        config=config,
        device=CPU,
        space=Space(built.fingerprint, "end", "float32"),
        store=FeatureStore(rows.folder / "store"),
        state=rows.folder / "state",
    )


def train(rows: Rows, config: RunConfig, backbone: Backbone | None = None, loader: Loader | None = None) -> Fitted:
    """A fit that no former one's state has a part in."""
    one = job(rows, config, backbone, loader)
    shutil.rmtree(one.state, ignore_errors=True)
    return fit(one)


def history(fitted: Fitted) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = fitted.facts["finetune"]["history"]
    return rows


def best(fitted: Fitted) -> dict[str, float]:
    return history(fitted)[fitted.facts["finetune"]["best_epoch"] - 1]


def weights(fitted: Fitted) -> dict[str, bytes]:
    assert fitted.backbone is not None
    tensors = {**fitted.backbone.state_dict(), **{f"head.{k}": v for k, v in fitted.head.state_dict().items()}}
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


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
