"""Contrastive tuning on small chains: what the pairs say, what it learns, what repeats, what it refuses."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tl_core.config import validate
from tl_core.digests import file_digest
from tl_core.errors import UserError
from tl_core.heads import linear_heads
from tl_core.store import FeatureStore, Space
from tl_core.training.contrastive import Pairs, contrastive
from tl_core.training.job import Fitted, Job, fit
from tl_core.training.loop import Training
from tl_core.types import Backbone, BackboneSpec, Identity, Loader, Prepared, Sample, Source, State, Targets, Task
from tl_core.watch import watch_metric

SPECS = {spec.task: spec for spec in linear_heads("points")}
HEADER = threading.Lock()  # Python 3.11's parser, which NumPy reads headers by, is not safe in threads


class Points(Loader):
    modality = "points"
    extensions = frozenset({".npy"})

    def decode(self, source: Source) -> np.ndarray:
        with HEADER:
            return cast(np.ndarray, np.load(source))

    def render(self, source: Source) -> str:
        return ""


class Layer(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, state: State) -> State:
        return {"x": torch.tanh(self.linear(state["x"]))}


class Chain(Backbone):
    def prepare(self, decoded: Any) -> Prepared:
        return Prepared(({"x": torch.from_numpy(decoded).float()},))

    def collate(self, windows: Sequence[State]) -> State:
        return {"x": torch.stack([window["x"] for window in windows])}


def chain() -> Chain:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        backbone = Chain([("first", Layer(6, 16)), ("second", Layer(16, 8))], 8, Identity("0" * 64, {}, "chain"))
    backbone.requires_grad_(False)
    return backbone.eval()


@dataclass
class Rows:
    """The part of a manifest that training reads: four classes by the signs of two of six numbers."""

    folder: Path
    labels: np.ndarray
    task: Task = "multiclass"
    data_version = "v1"

    @property
    def targets(self) -> Targets:
        return Targets(self.task, ("a", "b", "c", "d"))

    def digests(self, rows: np.ndarray) -> list[str]:
        return [file_digest(self.folder / f"{row}.npy") for row in rows]

    def samples(self, rows: np.ndarray) -> Iterator[Sample]:
        return (self.sample(int(row)) for row in rows)

    def sample(self, row: int) -> Sample:
        path = self.folder / f"{row}.npy"
        return Sample(row, path.name, file_digest(path), path, None, "train")

    def target_array(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.labels[rows])


def job(folder: Path, task: Task = "multiclass", train: int = 40, **tune: Any) -> Job:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(train + 40, 6))
    for row, point in enumerate(x):
        np.save(folder / f"{row}.npy", point)
    labels = (x[:, 0] > 0).astype(np.int64) + 2 * (x[:, 1] > 0)
    settings = {
        "train_from": "all", "epochs": 20, "batch_size": 16, "lr": 0.03, "precision": "float32", "refit": False, **tune,
    }  # fmt: skip
    extract = {"device": "cpu", "engine": "torch", "precision": "float32"}
    built = chain()
    return Job(
        manifest=cast(Any, Rows(folder, labels, task)),
        train=np.arange(train),
        val=np.arange(train, train + 40),
        loader=Points(),
        spec=BackboneSpec("chain", "points", "folder", "nowhere", lambda spec, seed: chain()),
        head_spec=SPECS["multiclass"],
        config=validate({"seed": 4, "extract": extract, "tune": settings}),
        device=torch.device("cpu"),
        space=Space(built.fingerprint, "end", "float32"),
        store=FeatureStore(folder / "store"),
        state=folder / "state",
    )


def weights(fitted: Fitted) -> dict[str, bytes]:
    assert fitted.backbone is not None
    tensors = {**fitted.backbone.state_dict(), **{f"head.{k}": v for k, v in fitted.head.state_dict().items()}}
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def spread(backbone: Backbone, one: Job) -> float:
    """How much nearer the validation rows of one class are to each other than those of two: a difference of cosines."""
    rows = torch.stack([torch.from_numpy(np.load(one.manifest.sample(int(r)).source)).float() for r in one.val])
    x, y = nn.functional.normalize(backbone({"x": rows})["x"], dim=1), one.targets(one.val)
    same = y[:, None] == y[None]
    return float((x @ x.T)[same].mean() - (x @ x.T)[~same].mean())


def test_loss_is_that_of_all_pairs() -> None:
    head = Pairs()
    x = head(torch.tensor([[2.0, 0.0], [0.0, 5.0], [3.0, 3.0], [-1.0, 0.0]]))
    y = torch.tensor([0, 0, 1, 2])
    same = (0.0 - 1) ** 2
    other = [0.5**0.5, -1.0, 0.5**0.5, 0.0, -(0.5**0.5)]
    expected = (same + sum(cosine**2 for cosine in other) / len(other)) / 2
    assert float(head.loss(x, y)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("y", "expected"), [([1, 1], 1.0), ([0, 1], 0.0), ([0], 0.0)])
def test_loss_without_pairs_of_a_kind(y: list[int], expected: float) -> None:
    x = torch.eye(2)[: len(y)].requires_grad_()
    loss = Pairs().loss(x, torch.tensor(y))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == expected
    assert isinstance(x.grad, Tensor)


def test_pulls_classes_together_and_probes_them(tmp_path: Path) -> None:
    one = job(tmp_path)
    fitted = contrastive(one)
    assert fitted.backbone is not None
    assert spread(fitted.backbone, one) > spread(chain(), one) + 0.2
    facts = fitted.facts["contrastive"]
    assert facts["losses"][-1] < facts["losses"][0] / 2
    assert (fitted.trained, facts["trained_parameters"]) == (("first", "second"), 6 * 16 + 16 + 16 * 8 + 8)
    truth = one.manifest.target_array(one.val)
    assert fitted.facts["validation"] == watch_metric("multiclass", fitted.said, truth) > 0.7
    assert fitted.said_seen.shape == (40, 4)


def test_same_bytes_again_and_others_by_another_seed(tmp_path: Path) -> None:
    one = job(tmp_path, epochs=3)
    assert weights(contrastive(one)) == weights(contrastive(one))
    other = one.replace(config=one.config.model_copy(update={"seed": 5}))
    assert weights(contrastive(other)) != weights(contrastive(one))


def test_frozen_segments_stay(tmp_path: Path) -> None:
    fitted = contrastive(job(tmp_path, train_from=1, epochs=2))
    assert fitted.backbone is not None
    before, after = chain().state_dict(), fitted.backbone.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "second" in name}


def test_refuses_all_that_makes_no_sense_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        contrastive(job(tmp_path, batch_size=1, mix="mixup", label_smoothing=0.1, find_lr=True))
    text = str(error.value)
    for key in ("batch_size", "mix", "label_smoothing", "find_lr"):
        assert f"'tune.{key}'" in text


def test_refuses_other_tasks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be 'contrastive' where the task is regression"):
        contrastive(job(tmp_path, task="regression"))


def test_refuses_classes_of_single_samples(tmp_path: Path) -> None:
    one = job(tmp_path)
    labels = one.manifest.target_array(one.train)
    firsts = np.array([np.flatnonzero(labels == label)[0] for label in range(4)])
    with pytest.raises(UserError, match="no class has two training samples"):
        contrastive(one.replace(train=firsts))


def test_names_what_makes_it_diverge(tmp_path: Path) -> None:
    one = job(tmp_path)
    np.save(tmp_path / "3.npy", np.full(6, np.nan))
    with pytest.raises(UserError, match=r"tuning diverged in epoch 1, batch \d+: .* nor is what 3.npy decode to; take"):
        contrastive(one)


def test_names_what_helps_where_it_diverges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = job(tmp_path, warmup=0)
    monkeypatch.setattr(Training, "step", lambda self, prepared, y, at: math.nan if at == (2, 1) else 0.5)
    with pytest.raises(UserError, match=r"in epoch 2, batch 2: .*; lower tune.lr \(now 0.03\), or raise tune.warmup"):
        contrastive(one)


def test_goes_on_from_its_own_state_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = job(tmp_path, strategy="contrastive", epochs=3, save_minutes=0)
    fitted = contrastive(one)

    def no_step(*arguments: Any) -> float:
        raise AssertionError("a step is taken")

    monkeypatch.setattr(Training, "step", no_step)
    again = contrastive(one)
    assert weights(again) == weights(fitted)
    assert again.facts == fitted.facts
    for other in (one.tuned(strategy="finetune"), one.tuned(lr=0.02)):
        with pytest.raises(AssertionError, match="a step is taken"):
            fit(other)
