"""Explanations: they point at what decides, follow the weights, and say so where there is nothing to point at."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tl_core import Backbone, DecodeError, Head, Identity, Loader, Overlay, Prepared, Saliency, State, Targets
from tl_core.explain import explain
from tl_core.heads import linear_heads

SIDE = 16
WORDS = 12


class Arrays(Loader):
    """A source is the text of a seed; what it stands for is looked up. Draws nothing but what it was given."""

    modality = "arrays"
    extensions = frozenset({".npy"})
    inline = True

    def __init__(self, samples: dict[str, Tensor]) -> None:
        self.samples = samples
        self.shown: list[Saliency] = []

    def decode(self, source: Any) -> Any:
        if source not in self.samples:
            raise DecodeError(f"nothing <called> {source}")
        return self.samples[source]

    def render(self, source: Any) -> str:
        return html.escape(str(source))

    def overlay(self, source: Any, saliencies: Sequence[Saliency]) -> Overlay:
        self.shown = list(saliencies)
        return Overlay(f"<p>{len(saliencies)}</p>", tuple(s.method for s in saliencies))


class Chain(Backbone):
    """A decoded sample is a batch of windows."""

    def prepare(self, decoded: Any) -> Prepared:
        return Prepared(tuple({"x": window} for window in decoded))

    def collate(self, windows: Sequence[State]) -> State:
        return {key: torch.stack([window[key] for window in windows]) for key in windows[0]}

    def places(self, decoded: Any) -> list[int]:
        return list(range(len(decoded)))


class Part(nn.Sequential):
    def forward(self, state: State) -> State:
        return {**state, "x": super().forward(state["x"])}


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) if x.ndim == 4 else x.mean(dim=1)


class First(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class Patches(nn.Module):
    """[B, 3, 16, 16] to a class token and 16 patches, with places."""

    def __init__(self, token: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 24, 4, 4)
        self.place = nn.Parameter(torch.randn(1, 16 + token, 24) * 0.3)
        self.token = nn.Parameter(torch.zeros(1, 1, 24)) if token else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        return x + self.place


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(24), nn.LayerNorm(24)
        self.attention = nn.MultiheadAttention(24, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.inner(x))  # type: ignore[no-any-return]


class Transformer(Chain):
    """Tokens in a grid behind a class token."""

    prefix = 1

    def blank(self, window: State) -> State | None:
        return {"x": torch.zeros_like(window["x"])}

    def spatial(self, state: State) -> Tensor | None:
        if state["x"].ndim != 3:
            return super().spatial(state)
        x = state["x"][:, self.prefix :].transpose(1, 2)
        return x.reshape(*x.shape[:2], 4, 4)


class Averaged(Transformer):
    prefix = 0

    def blank(self, window: State) -> State | None:
        return None


class Words(Chain):
    """Windows of numbers of words; 0 is nothing."""

    def blank(self, window: State) -> State:
        return {"x": torch.zeros_like(window["x"])}


@dataclass
class Model:
    loader: Any
    backbone: Backbone
    head: Head
    targets: Targets


TWO = Targets("multiclass", ("plain", "marked"))


def conv() -> Backbone:
    return Chain(
        [
            ("stem", Part(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))),
            ("deep", Part(nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))),
            ("pool", Part(Mean())),
        ],
        24,
        Identity("0" * 64, {}, "conv"),
    )


def one_piece() -> Backbone:
    whole = Part(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 3), nn.ReLU(), Mean())
    return Chain([("network", whole)], 24, Identity("0" * 64, {}, "one"))


def transformer(kind: type[Transformer] = Transformer) -> Backbone:
    token = kind.prefix == 1
    segments: list[tuple[str, nn.Module]] = [
        ("embed", Part(Patches(token))),
        ("block0", Part(Block())),
        ("block1", Part(Block())),
        ("pool", Part(nn.LayerNorm(24), First() if token else Mean())),
    ]
    return kind(segments, 24, Identity("0" * 64, {}, "vit"))


def reader() -> Backbone:
    segments: list[tuple[str, nn.Module]] = [
        ("embed", Part(nn.Embedding(30, 24))),
        ("block", Part(Block())),
        ("pool", Part(Mean())),
    ]
    return Words(segments, 24, Identity("0" * 64, {}, "reader"))


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise, and in half of it a bright spot in the upper right, on [12:16] from the left and [0:4] from the top."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, SIDE, SIDE, generator=generator) * 0.5
    truth = torch.arange(count) % 2
    x[truth == 1, :, 0:4, 12:16] += 1.5
    return x, truth


def sentences(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Words 2 to 29, and in half of them the word 1 at any place."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(2, 30, (count, WORDS), generator=generator)
    truth = torch.arange(count) % 2
    place = torch.randint(0, WORDS, (count,), generator=generator)
    x[truth == 1, place[truth == 1]] = 1
    return x, truth


def trained(build: Callable[[], Backbone], data: Callable[[int, int], tuple[Tensor, Tensor]]) -> Model:
    """A network that has learnt the task; its loader knows the samples 0 to 19, of which the odd ones are marked."""
    torch.manual_seed(0)
    backbone, x_y = build(), data(256, 0)
    head = head_for(TWO)
    optimiser = torch.optim.Adam([*backbone.parameters(), *head.parameters()], 3e-3)
    for step in range(80):
        rows = torch.arange(64) + 64 * (step % 4)
        loss = head.loss(head(backbone({"x": x_y[0][rows]})["x"]), x_y[1][rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    optimiser.zero_grad()
    backbone.requires_grad_(False).eval()
    x, truth = data(20, 1)
    with torch.no_grad():
        right = (head(backbone({"x": x})["x"]).argmax(dim=1) == truth).float().mean()
    assert right >= 0.9, f"the task was not learnt: {right}"
    return Model(Arrays({str(i): row[None] for i, row in enumerate(x)}), backbone, head, TWO)


def head_for(targets: Targets) -> Head:
    return next(spec for spec in linear_heads("arrays") if spec.task == targets.task).build(24, targets)


def maps(model: Model, label: str = "marked") -> list[np.ndarray]:
    """The maps of the marked samples."""
    found = []
    for name in list(model.loader.samples)[1::2]:
        explanation = explain(model, name, [label])
        assert explanation.error is None, explanation.error
        found.append(model.loader.shown[0].heats[0].values)
    return found


def in_the_corner(heat: np.ndarray) -> float:
    """Share of the heat on the sixteenth of the picture where the spot is."""
    height, width = heat.shape
    mass = heat.clip(min=0)
    return float(mass[: height // 4, -(width // 4) :].sum() / mass.sum())


@pytest.mark.parametrize("build", [conv, transformer, lambda: transformer(Averaged)], ids=["conv", "class", "mean"])
def test_a_map_points_at_the_corner_that_decides(build: Callable[[], Backbone]) -> None:
    model = trained(build, pictures)
    assert np.mean([in_the_corner(heat) for heat in maps(model)]) > 0.4  # of a sixteenth of the picture


def test_words_point_at_the_one_that_decides() -> None:
    model = trained(reader, sentences)
    names = list(model.loader.samples)[1::2]
    for name, heat in zip(names, maps(model)):
        assert heat.shape == (1, WORDS)
        words = model.loader.samples[name][0]
        assert words[int(heat[0].argmax())] == 1
        assert heat[0, words == 1].sum() > 0.6 * heat.clip(min=0).sum()


def test_what_words_add_is_what_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tl_core.explain.integrated.POINTS", 100)
    model = trained(reader, sentences)
    name = "1"
    with torch.no_grad():
        x = torch.cat([model.loader.samples[name], torch.zeros(1, WORDS, dtype=torch.int64)])
        logits = model.head(model.backbone({"x": x})["x"])
    odds = logits[:, 1] - logits[:, 0]
    explain(model, name, ["marked"])
    (saliency,) = model.loader.shown
    assert float(saliency.heats[0].values.sum()) == pytest.approx(float(odds[0] - odds[1]), rel=0.02)
    assert saliency.score == pytest.approx(float(logits.softmax(dim=1)[0, 1]), abs=1e-6)


@pytest.mark.parametrize(("build", "data"), [(conv, pictures), (transformer, pictures), (reader, sentences)])
def test_random_weights_give_another_map(
    build: Callable[[], Backbone], data: Callable[[int, int], tuple[Tensor, Tensor]]
) -> None:
    """A map that an untrained network gives as well would show the sample, not the model (Adebayo et al., 2018)."""
    model = trained(build, data)
    torch.manual_seed(7)
    random = Model(model.loader, build().requires_grad_(False).eval(), model.head, TWO)
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(maps(model), maps(random), strict=True)]
    assert abs(np.mean(alike)) < 0.5
    again = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(maps(model), maps(model), strict=True)]
    assert np.mean(again) == pytest.approx(1)


def test_one_piece_falls_back_to_its_input() -> None:
    model = trained(one_piece, pictures)
    found = maps(model)
    assert found[0].shape == (14, 14)
    assert model.loader.shown[0].method == "integrated gradients of the input"
    assert np.mean([in_the_corner(heat) for heat in found]) > 0.4


def test_windows_compare_with_each_other() -> None:
    model = trained(conv, pictures)
    plain, marked = model.loader.samples["0"], model.loader.samples["1"]
    model.loader.samples["both"] = torch.cat([plain, marked, plain])
    assert explain(model, "both", ["marked"]).error is None
    heats = model.loader.shown[0].heats
    assert [heat.place for heat in heats] == [0, 1, 2]
    peaks = [heat.values.max() for heat in heats]
    assert peaks[1] == max(peaks)
    assert peaks[1] > 2 * peaks[0]


def test_without_a_class_it_is_the_most_probable() -> None:
    model = trained(conv, pictures)
    assert explain(model, "0").titles[0].startswith("plain, ")
    assert explain(model, "1").titles[0].startswith("marked, ")
    both = explain(model, "1", ["plain", "marked"])
    assert [title.partition(",")[0] for title in both.titles] == ["plain", "marked"]
    one, other = (saliency.heats[0].values for saliency in model.loader.shown)
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] < 0.5


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks(task: Any) -> None:
    model = trained(conv, pictures)
    targets = Targets(task, ("plain", "marked") if task == "multilabel" else ())
    head = head_for(targets)
    linear: Any = head
    trained_head: Any = model.head
    with torch.no_grad():
        linear.linear.weight.copy_(trained_head.linear.weight[-targets.outputs :])
        linear.linear.bias.copy_(trained_head.linear.bias[-targets.outputs :])
    other = Model(model.loader, model.backbone, head, targets)
    found = explain(other, "1", ["marked"] if targets.classes else [])
    assert found.error is None
    assert found.titles[0].startswith("marked, " if targets.classes else "value ")
    assert in_the_corner(model.loader.shown[0].heats[0].values) > 0.4


class Deaf(Chain):
    def places(self, decoded: Any) -> Any:
        return None


class Mute(Arrays):
    def overlay(self, source: Any, saliencies: Sequence[Saliency]) -> Any:
        return None


class Torn(nn.Module):
    def forward(self, state: State) -> State:
        raise RuntimeError("no gradient <here>\nnor there")


def test_what_can_not_be_explained_says_why(tmp_path: Path) -> None:
    model = trained(conv, pictures)
    sources = {str(i): sample for i, sample in model.loader.samples.items()}
    identity = Identity("0" * 64, {}, "x")
    parts = list(model.backbone.segments.items())
    silent = head_for(TWO)
    cases = {
        "nothing <called> x": (model, "x", []),
        "no such file": (model, tmp_path / "x.npy", []),
        "no class 'marks'; did you mean marked?": (model, "1", ["marks"]),
        "does not tell what of a sample": (Model(model.loader, Deaf(parts, 24, identity), model.head, TWO), "1", []),
        "the arrays plugin draws no explanations": (Model(Mute(sources), model.backbone, model.head, TWO), "1", []),
        "nothing in the sample moves": (Model(model.loader, model.backbone, silent, TWO), "1", []),
        "RuntimeError: no gradient <here>": (
            Model(model.loader, Chain([("torn", Torn())], 24, identity), model.head, TWO),
            "1",
            [],
        ),
    }
    for reason, (case, source, labels) in cases.items():
        found = explain(case, source, labels)
        assert found.error is not None
        assert reason in found.error
        assert found.html == f"<p>Can't tell what the model looked at: {html.escape(found.error)}.</p>"
    assert explain(model, "1", ["marked", "plain"]).html == "<p>2</p>"
    assert explain(model, "x", []).html == "<p>Can't tell what the model looked at: nothing &lt;called&gt; x.</p>"


def test_the_same_again_and_nothing_is_left_behind() -> None:
    model = trained(reader, sentences)
    embed: Any = model.backbone.segments["embed"]
    first, second = maps(model)[0], maps(model)[0]
    assert (first == second).all()
    assert not embed[0]._forward_hooks
    assert not any(p.requires_grad or p.grad is not None for p in model.backbone.parameters())
