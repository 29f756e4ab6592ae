"""Series in windows, a small convolutional chain over them, and fits of it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from tl_core.config import RunConfig, validate
from tl_core.digests import file_digest
from tl_core.errors import DecodeError
from tl_core.heads import linear_heads
from tl_core.store import FeatureStore, Space
from tl_core.training import Fitted, Job, fit
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
    statistics = "update" if tune.get("update", "all") in ("all", "norms") else "keep"
    plain = {"precision": "float32", "batch_norm": statistics}
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
