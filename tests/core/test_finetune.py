"""Fine-tuning on a small convolutional chain: what trains, what stays, what repeats."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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
from tl_core.training import FinetuneFit, finetune, predict_rows
from tl_core.training.batches import Samples, even_batches
from tl_core.training.finetune import first_trained, warm_cosine
from tl_core.types import Backbone, HeadSpec, Identity, Loader, Prepared, Sample, Source, State, Targets, Task
from tl_core.watch import watch_metric

SPECS: dict[Task, HeadSpec] = {spec.task: spec for spec in linear_heads("series")}
CPU = torch.device("cpu")


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, 5, padding=2)
        self.norm = nn.BatchNorm1d(outputs)
        self.drop = nn.Dropout(0.1)

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


def chain(project: bool = False) -> Chain:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        segments: list[tuple[str, nn.Module]] = [("stem", Block(1, 6)), ("block", Block(6, 12)), ("pool", Pool())]
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
    small = {"strategy": "finetune", "epochs": 3, "batch_size": 8, "lr": 1e-3, "head_lr": 1e-2}
    return validate({"seed": seed, "tune": {**small, **tune}})


def train(rows: Rows, config: RunConfig, backbone: Backbone | None = None, loader: Loader | None = None) -> FinetuneFit:
    backbone = backbone or chain()
    spec = SPECS[rows.task]
    head = spec.build(backbone.feature_dim, rows.targets)
    return finetune(cast(Any, rows), loader or Series(), backbone, head, spec, config, CPU)


def weights(module: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_learns_and_predicts(tmp_path: Path, task: Task) -> None:
    rows = write(tmp_path, task)
    fit = train(rows, settings(epochs=8, train_from="all"))
    val = rows.rows("val")
    predictions = predict_rows(cast(Any, rows), val, Series(), fit.backbone, fit.head, CPU)
    reached = watch_metric(task, predictions, rows.labels[val])
    assert reached == pytest.approx(fit.history[fit.best_epoch - 1]["val"], abs=1e-6)
    assert reached > 0.75
    assert not fit.backbone.training
    assert not fit.head.training
    assert not any(p.requires_grad for p in [*fit.backbone.parameters(), *fit.head.parameters()])


def test_two_runs_give_the_same_bytes_and_leave_torchs_generator_alone(tmp_path: Path) -> None:
    rows = write(tmp_path)
    head = SPECS["multiclass"].build(12, rows.targets)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = finetune(cast(Any, rows), Series(), chain(), head, SPECS["multiclass"], settings(), CPU)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = train(rows, settings()), train(rows, settings(seed=1))
    assert first.history == second.history
    assert weights(first.head) == weights(second.head)
    assert weights(first.backbone) == weights(second.backbone)
    assert weights(first.backbone) != weights(other.backbone)


@pytest.mark.parametrize(("train_from", "trained"), [(1, ("block", "pool")), (2, ("stem", "block", "pool"))])
def test_frozen_segments_keep_weights_and_statistics(tmp_path: Path, train_from: int, trained: tuple[str, ...]) -> None:
    before = weights(chain())
    fit = train(write(tmp_path), settings(train_from=train_from))
    assert fit.trained == trained
    after = weights(fit.backbone)
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


def test_linear_head_is_standardised_by_the_training_embeddings(tmp_path: Path) -> None:
    rows = write(tmp_path, "regression")
    fit = train(rows, settings(epochs=1))
    head = fit.head
    assert isinstance(head, RegressionHead)
    assert not torch.equal(head.mean, torch.zeros(12))
    y = rows.labels[rows.rows("train")]
    assert float(head.centre) == pytest.approx(y.mean())
    assert float(head.spread) == pytest.approx(y.std())


class Gain(nn.Module):
    """A learned factor per column, nearly nothing for the first: trained encoders hold such."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.weight.data[0] = 1e-33

    def forward(self, state: State) -> State:
        return {"x": state["x"] * self.weight}


def test_a_nearly_dead_column_does_not_drown_the_gradient(tmp_path: Path) -> None:
    backbone = chain()
    backbone.segments["gain"] = Gain(12)
    fit = train(write(tmp_path), settings(epochs=1), backbone)
    assert math.isfinite(fit.history[0]["loss"])
    assert fit.trained == ("gain",)


def test_best_epoch_is_restored_and_patience_ends_the_run(tmp_path: Path) -> None:
    rows = write(tmp_path)
    fit = train(rows, settings(epochs=30, patience=2, lr=0.5, head_lr=0.5))
    assert len(fit.history) == min(30, fit.best_epoch + 2)
    best = max(fit.history, key=lambda h: (h["val"], -h["val_loss"]))
    assert best["epoch"] == fit.best_epoch
    val = rows.rows("val")
    predictions = predict_rows(cast(Any, rows), val, Series(), fit.backbone, fit.head, CPU)
    assert watch_metric("multiclass", predictions, rows.labels[val]) == best["val"]


@pytest.mark.parametrize("train_rows", [1, 2, 9])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_batches_of_one_pass_through_batch_norm(tmp_path: Path, train_rows: int, batch_size: int) -> None:
    rows = write(tmp_path, train=train_rows, val=4)
    fit = train(rows, settings(epochs=1, batch_size=batch_size, train_from="all"), chain(project=True))
    assert math.isfinite(fit.history[0]["loss"])


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


def test_rates_and_decay_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.optim.AdamW] = []
    plain = torch.optim.AdamW

    def record(groups: Any) -> torch.optim.AdamW:
        made.append(plain(groups))
        return made[-1]

    monkeypatch.setattr(torch.optim, "AdamW", record)
    train(write(tmp_path), settings(epochs=1, weight_decay=0.3))
    groups = [(g["initial_lr"], g["weight_decay"], {p.ndim for p in g["params"]}) for g in made[0].param_groups]
    assert groups == [(1e-3, 0.3, {3}), (1e-3, 0.0, {1}), (1e-2, 0.3, {2}), (1e-2, 0.0, {1})]


def test_schedule_rises_and_falls() -> None:
    shares = [warm_cosine(step, 4, 20) for step in range(21)]
    assert shares[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert all(a > b for a, b in pairwise(shares[4:]))
    assert shares[20] == pytest.approx(0.0)


def test_divergence_names_the_place_and_the_remedy(tmp_path: Path) -> None:
    rows = write(tmp_path)
    np.save(tmp_path / "5.npy", np.full(40, np.nan))
    with pytest.raises(UserError) as caught:
        train(rows, settings())
    text = str(caught.value)
    assert text.startswith("the training diverged in epoch 1, batch ")
    assert "lower tune.lr (now 0.001) and tune.head_lr (now 0.01), or raise tune.warmup (now 0.1)" in text


def test_a_sample_that_no_longer_decodes_is_named(tmp_path: Path) -> None:
    rows = write(tmp_path)
    with pytest.raises(UserError, match=r"^7\.npy has changed since it was checked \(empty file\); run again$"):
        train(rows, settings(), loader=Series(unreadable=str(tmp_path / "7.npy")))


@pytest.mark.parametrize("train_from", [0, -1, 3])
def test_train_from_must_fit_the_chain(train_from: int) -> None:
    with pytest.raises(UserError) as caught:
        first_trained(chain(), train_from)
    assert str(caught.value) == (
        f"config key 'tune.train_from' can't be {train_from}: the backbone has 2 segments with weights; "
        "allowed: 1 to 2 (of stem, block), or all"
    )
    assert [first_trained(chain(), k) for k in (1, 2, "all")] == [1, 0, 0]


@pytest.mark.parametrize(("train_rows", "val_rows"), [(0, 4), (4, 0)])
def test_rows_of_both_splits_are_needed(tmp_path: Path, train_rows: int, val_rows: int) -> None:
    with pytest.raises(ValueError, match="needs training and validation rows"):
        train(write(tmp_path, train=train_rows, val=val_rows), settings())


def test_batches_keep_order_and_bound_what_is_decoded_ahead(tmp_path: Path) -> None:
    rows = write(tmp_path)
    loader = Series()
    decoded: list[Source] = []
    plain = loader.decode
    loader.decode = lambda source: (decoded.append(source), plain(source))[1]  # type: ignore[method-assign, func-returns-value]
    stream = Samples(cast(Any, rows), loader, chain()).batches(even_batches(rows.rows("train"), 4))
    first, prepared = next(stream)
    assert first.tolist() == list(range(4))
    assert [len(sample.windows) for sample in prepared] == [1, 1, 3, 1]
    assert len(decoded) <= 12
    assert [batch.tolist() for batch, _ in stream] == [b.tolist() for b in even_batches(np.arange(33), 4)[1:]]


def test_batches_are_even() -> None:
    assert [len(batch) for batch in even_batches(np.arange(33), 32)] == [17, 16]
    assert [len(batch) for batch in even_batches(np.arange(3), 8)] == [3]
    assert [len(batch) for batch in even_batches(np.arange(0), 8)] == [0]


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
    rows = write(tmp_path)
    head = Mlp()
    fit = finetune(cast(Any, rows), Series(), chain(), head, SPECS["multiclass"], settings(), CPU)
    assert fit.head is head
    assert {row["epoch"] for row in fit.history} == {1, 2, 3}
