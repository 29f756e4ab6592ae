"""Small networks for the tests of the engines: convolutions, attention over patches, attention over masked tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tl_core import Backbone, Identity, Prepared, State
from tl_core.engines import Engine, choose_engine, disagreement

CPU = torch.device("cpu")


class Net(Backbone):
    """A chain of segments without a modality."""

    def __init__(self, segments: Sequence[tuple[str, nn.Module]], dim: int, name: str, ragged: bool = False) -> None:
        super().__init__(segments, dim, Identity(name, {"net": name}, name))
        self.ragged = ragged
        self.requires_grad_(False).eval()

    def bucket(self, window: State) -> int:
        return len(window["x"]) if self.ragged else 0

    def prepare(self, decoded: Any) -> Prepared:
        return Prepared((decoded,))

    def collate(self, windows: Sequence[State]) -> State:
        return {key: torch.stack([window[key] for window in windows]) for key in windows[0]}


class Part(nn.Module):
    """A segment: modules over `x`; other keys ride along."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, state: State) -> State:
        return {**state, "x": self.parts(state["x"])}


class Normalise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.float() / 255 - 0.5) / 0.2


class Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 8, 8)
        self.place = nn.Parameter(torch.randn(1, 16, 32) * 0.1)

    def forward(self, state: State) -> State:
        x = self.conv(state["x"].float() / 255 - 0.5).flatten(2).transpose(1, 2)
        return {**state, "x": x + self.place}


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 32)
        self.places = nn.Embedding(64, 32)

    def forward(self, state: State) -> State:
        place = torch.arange(state["x"].shape[1], device=state["x"].device)
        return {"x": self.words(state["x"]) + self.places(place), "mask": state["mask"]}


class Block(nn.Module):
    """Attention over 4 heads and a small network, with a mask where the state has one."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(32), nn.LayerNorm(32)
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, state: State) -> State:
        x = state["x"]
        batch, length, dim = x.shape
        q, k, v = self.qkv(self.before(x)).view(batch, length, 3, 4, dim // 4).permute(2, 0, 3, 1, 4)
        mask = None
        if "mask" in state:
            mask = (1 - state["mask"][:, None, None, :]).to(q.dtype) * -30000.0
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, dim))
        return {**state, "x": x + self.mlp(self.between(x))}


class Mean(nn.Module):
    """The mean over the positions, those of the mask where there is one."""

    def forward(self, state: State) -> State:
        x = state["x"]
        if "mask" not in state:
            return {"x": x.mean(dim=1)}
        seen = state["mask"].unsqueeze(-1).to(x.dtype)
        return {"x": (x * seen).sum(dim=1) / seen.sum(dim=1)}


def cnn() -> Net:
    torch.manual_seed(0)
    stem = Part(Normalise(), nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
    stage = Part(nn.Conv2d(16, 32, 3, 2, 1, groups=4), nn.BatchNorm2d(32), nn.Hardswish(), nn.Conv2d(32, 32, 1))
    return Net([("stem", stem), ("stage", stage), ("pool", Part(nn.AdaptiveAvgPool2d(1), nn.Flatten()))], 32, "cnn")


def vit() -> Net:
    torch.manual_seed(0)
    return Net([("embed", Patches()), ("block0", Block()), ("block1", Block()), ("pool", Mean())], 32, "vit")


def bert() -> Net:
    torch.manual_seed(0)
    segments = [("embeddings", Tokens()), ("layer_0", Block()), ("layer_1", Block()), ("pool", Mean())]
    return Net(segments, 32, "bert", ragged=True)


def images(rows: int = 8, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {"x": torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8, generator=generator)}


def texts(rows: int = 8, width: int = 16, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(width // 2, width + 1, (rows, 1), generator=generator)
    mask = (torch.arange(width) < lengths).long()
    return {"x": torch.randint(1, 100, (rows, width), generator=generator) * mask, "mask": mask}


NETS = {"cnn": (cnn, images), "vit": (vit, images), "bert": (bert, texts)}


def chosen(net: Net, batch: State, **wanted: Any) -> tuple[Engine, str | None]:
    defaults = {"device": CPU, "precision": "float32", "stop": None, "rows": 10, "folder": None, "example": batch}
    return choose_engine(net, **{**defaults, **wanted})


def through(engine: Engine, *batches: State) -> list[State]:
    found = list(engine.run(enumerate(batches)))
    assert [key for key, _ in found] == list(range(len(batches)))
    return [state for _, state in found]


def assert_rows_agree(found: State, expected: State, precision: str) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].shape == tensor.shape
        for a, b in zip(tensor.numpy(), found[key].numpy(), strict=True):
            assert disagreement(a.ravel(), b.ravel(), precision) is None


def assert_same(a: State, b: State) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
