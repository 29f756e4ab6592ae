"""A modality of its own for tests: files of bytes, and a small ragged backbone over them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from tl_core.errors import DecodeError
from tl_core.extraction import Extraction, extract, space_of
from tl_core.store import FeatureStore
from tl_core.types import Backbone, Identity, Loader, Prepared, Sample, Source, State

if TYPE_CHECKING:
    from tl_core.manifest import Manifest

WIDTH, DIM = 6, 16


@dataclass
class FakeManifest:
    """The part of the manifest that extraction reads: sources are files of bytes."""

    root: Path
    names: list[str]
    known: dict[str, str] = field(default_factory=dict)  # digests as they were when the files were checked
    data_version: str = "v1"

    def __post_init__(self) -> None:
        for name in self.names:
            if (self.root / name).is_file():
                self.known.setdefault(name, hashlib.md5((self.root / name).read_bytes()).hexdigest())

    def digests(self, rows: np.ndarray) -> list[str]:
        return [self.known[self.names[row]] for row in rows]

    def samples(self, rows: np.ndarray) -> Iterator[Sample]:
        for row in rows.tolist():
            name = self.names[row]
            yield Sample(row, name, self.known[name], self.root / name, "a", "train")


class BytesLoader(Loader):
    """Files of at least one byte that don't begin with `bad`."""

    modality = "bytes"
    extensions = frozenset({".bin"})

    def __init__(self) -> None:
        self.decoded: list[str] = []

    def decode(self, source: Source) -> Any:
        assert isinstance(source, Path)
        data = source.read_bytes()
        self.decoded.append(source.name)
        if data.startswith(b"bad"):
            raise DecodeError("not my kind of bytes")
        return data

    def render(self, source: Source) -> str:
        return "<p>bytes</p>"


class Embed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(256, DIM)

    def forward(self, state: State) -> State:
        return {**state, "x": self.table(state["x"])}  # [B, W] -> [B, W, D]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(DIM, DIM)
        self.drop = nn.Dropout(0.5)  # alive outside eval mode

    def forward(self, state: State) -> State:
        return {**state, "x": torch.tanh(self.drop(self.linear(state["x"])))}


class Pool(nn.Module):
    def forward(self, state: State) -> State:
        assert state["x"].dtype == torch.float32
        mask = state["mask"].unsqueeze(-1)
        return {"x": (state["x"] * mask).sum(1) / mask.sum(1)}  # [B, W, D] -> [B, D]


class FakeBackbone(Backbone):
    """Windows of up to six bytes in buckets of two, four or six; at most five windows are seen."""

    ragged = True

    def __init__(self, seed: int = 0, weights: str = "w", preprocessing: int = 1, scale: float = 1.0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            segments = [("stem", Embed()), ("block", Block()), ("pool", Pool())]
            identity = Identity(f"{weights}{seed}", {"preprocessing": preprocessing}, "fake")
            super().__init__(segments, DIM, identity)
            self.get_parameter("segments.stem.table.weight").data.mul_(scale)
        self.shapes: list[tuple[int, ...]] = []
        self.requires_grad_(False)

    def prepare(self, decoded: bytes) -> Prepared:
        cuts = [decoded[at : at + WIDTH] for at in range(0, len(decoded), WIDTH)]
        windows = tuple({"x": torch.tensor(list(cut))} for cut in cuts[:5])
        return Prepared(windows, truncated=len(cuts) > 5)

    def bucket(self, window: State) -> int:
        return -(-len(window["x"]) // 2) * 2

    def batch_size(self, bucket: int) -> int:
        return 3 if bucket == WIDTH else 4

    def collate(self, windows: Sequence[State]) -> State:
        width = self.bucket(windows[0])
        x = torch.zeros(len(windows), width, dtype=torch.int64)
        mask = torch.zeros(len(windows), width)
        for row, window in enumerate(windows):
            assert self.bucket(window) == width
            x[row, : len(window["x"])] = window["x"]
            mask[row, : len(window["x"])] = 1
        self.shapes.append((len(windows), width))
        return {"x": x, "mask": mask}

    def boundary_rows(self, state: State, windows: Sequence[State]) -> list[State]:
        return [{"x": state["x"][i, : len(window["x"])]} for i, window in enumerate(windows)]

    def boundary_bucket(self, row: State) -> int:
        return self.bucket(row)

    def collate_boundary(self, rows: Sequence[State]) -> State:
        width = self.bucket(rows[0])
        x, mask = torch.zeros(len(rows), width, DIM), torch.zeros(len(rows), width)
        for i, row in enumerate(rows):
            x[i, : len(row["x"])], mask[i, : len(row["x"])] = row["x"], 1
        return {"x": x, "mask": mask}


def write_files(root: Path, count: int = 40, seed: int = 0) -> FakeManifest:
    rng = random.Random(seed)
    root.mkdir(parents=True, exist_ok=True)
    names = [f"{number:03}.bin" for number in range(count)]
    for name in names:
        (root / name).write_bytes(name.encode() + rng.randbytes(rng.randint(1, 30)))
    return FakeManifest(root, names)


def run(manifest: FakeManifest, store: FeatureStore, backbone: Backbone | None = None, **options: Any) -> Extraction:
    rows = options.pop("rows", np.arange(len(manifest.names)))
    return extract(
        cast("Manifest", manifest), rows, options.pop("loader", BytesLoader()), backbone or FakeBackbone(), store,
        **{"device": "cpu", "precision": "float32", "engine": "torch", **options},
    )  # fmt: skip


def stored(manifest: FakeManifest, store: FeatureStore, precision: str = "float32") -> np.ndarray:
    rows = np.arange(len(manifest.names))
    return store.read(space_of(FakeBackbone(), precision), manifest.digests(rows))[0]
