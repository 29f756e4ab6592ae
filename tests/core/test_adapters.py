"""Adapters: where they go, that they start as nothing, and that merging keeps what they learnt."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
from chains import Chain, Steps, built, maps, tokens
from torch import Tensor, nn

from tl_core.training.adapters import ADAPTERS, Adapter, adaptable, inject, injected, merge


def batch(backbone: Chain) -> Tensor:
    return torch.randn(6, *backbone.size, generator=torch.Generator().manual_seed(1))


def shaken(segments: list[nn.Module]) -> None:
    """As if training had moved the adapters."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for segment in segments:
            for _, parameter in injected(segment):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def test_only_layers_that_peft_can_redo_are_wrapped() -> None:
    # not a convolution in groups, and not what attention reads by itself
    assert adaptable(maps(), 0) == {"stem": ["0"], "group": [], "act": [], "deep": ["0"], "pool": []}
    assert adaptable(tokens(), 1) == {"high": ["0.mlp"], "end": [], "pool": []}
    backbone = maps()
    backbone.segments["group"] = Steps(type("Conv2dSame", (nn.Conv2d,), {})(8, 8, 1))
    backbone.segments["deep"] = Steps(nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 12, 1)))
    assert not any(adaptable(built(backbone), 1).values())


class Past(nn.Module):
    """A layer whose weights are read without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.called = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.called(nn.functional.linear(x, self.read.weight, self.read.bias))
        return out


def test_a_layer_that_is_never_called_takes_no_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tokens()
    backbone.segments["high"] = Steps(Past())
    assert adaptable(built(backbone), 1)["high"] == ["0.called"]
    assert not any(module._forward_hooks for module in backbone.modules())
    monkeypatch.setattr(type(backbone), "example", lambda self: None)  # then there is no telling
    assert adaptable(backbone, 1)["high"] == ["0.read", "0.called"]


@pytest.mark.parametrize("update", ADAPTERS)
@pytest.mark.parametrize("make", [maps, tokens])
def test_adapters_start_as_nothing_and_merge_without_a_trace(make: Callable[[], Chain], update: str) -> None:
    backbone = make()
    x, names = batch(backbone), {k: v.shape for k, v in backbone.state_dict().items()}
    segments = list(backbone.segments.values())
    before = backbone({"x": x})["x"]
    inject(backbone, 0, cast(Adapter, update), rank=3, seed=0)
    torch.testing.assert_close(backbone({"x": x})["x"], before)
    added = [parameter for segment in segments for _, parameter in injected(segment)]
    assert added
    assert {id(p) for p in backbone.parameters() if p.requires_grad} == {id(p) for p in added}
    shaken(segments)
    with_adapters = backbone({"x": x})["x"].detach()
    assert (with_adapters - before).abs().max() > 0.01
    merge(segments)
    assert {k: v.shape for k, v in backbone.state_dict().items()} == names
    assert list(backbone.state_dict()) == list(names)
    torch.testing.assert_close(backbone({"x": x})["x"].detach(), with_adapters, rtol=1e-4, atol=1e-5)
    assert not any("peft" in type(module).__module__ for module in backbone.modules())
    assert not any(hasattr(segment, "peft_config") for segment in segments)


@pytest.mark.parametrize("update", ADAPTERS)
def test_adapters_train_also_in_half_precision(update: str) -> None:
    backbone = tokens()
    segments = list(backbone.segments.values())
    inject(backbone, 0, cast(Adapter, update), rank=2, seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        backbone({"x": batch(backbone)})["x"].float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for s in segments for _, p in injected(s))


def test_first_weights_follow_the_seed_alone() -> None:
    def drawn(seed: int, state: int) -> list[Tensor]:
        torch.manual_seed(state)
        backbone = maps()
        inject(backbone, 0, "lora", rank=2, seed=seed)
        return [p.detach() for segment in backbone.segments.values() for _, p in injected(segment)]

    first = drawn(0, 7)
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), after)  # the caller's generator has not moved
    assert all(torch.equal(a, b) for a, b in zip(first, drawn(0, 8), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, drawn(1, 7), strict=True))
