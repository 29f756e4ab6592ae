"""The last block of a vision transformer computes the class token alone where nobody looks at the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from tl_image import timm_networks
from tl_image.backbones import ImageBackbone, assemble
from tl_image.class_token import LastBlock
from torch import Tensor

from tl_core import State, random_weights
from tl_core.training.adapters import inject

SIDE = 64


def vit(name: str = "test_vit", **arguments: Any) -> ImageBackbone:
    config = {"architecture": name, "model_args": {"img_size": SIDE, **arguments}}
    data = {"input_size": (3, SIDE, SIDE), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    network = timm_networks.by_config({**config, "pretrained_cfg": data}, None)  # type: ignore[arg-type]
    backbone = assemble(network, random_weights(network.create, 0), "0" * 64, None)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in backbone.parameters():  # biases and layer scales start at values that hide faults
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return backbone


def images() -> State:
    return {
        "x": torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    }


def gradients(backbone: ImageBackbone, weights: Tensor) -> dict[str, Tensor]:
    backbone.zero_grad()
    (backbone(images())["x"] * weights).sum().backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "arguments",
    [{}, {"qkv_bias": False}, {"init_values": 0.1}, {"reg_tokens": 2}, {"scale_attn_norm": True}],
)
def test_the_embedding_and_its_gradients_are_the_same(arguments: dict[str, Any]) -> None:
    backbone = vit(**arguments)
    backbone.requires_grad_(True)
    whole = backbone(images())["x"]
    weights = torch.randn(whole.shape, generator=torch.Generator().manual_seed(3))
    expected = gradients(backbone, weights)
    with backbone.embedding_only():
        torch.testing.assert_close(backbone(images())["x"], whole, rtol=1e-4, atol=1e-5)
        found = gradients(backbone, weights)
        last = backbone.segment_names[-2]
        assert backbone(images(), stop=len(backbone.segments) - 1)["x"].shape[1] == 1
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4, msg=name)
    assert backbone(images(), stop=len(backbone.segments) - 1)["x"].shape[1] > 1
    assert isinstance(backbone.segments[last].get_submodule("0"), LastBlock)


@pytest.mark.parametrize("arguments", [{"qk_norm": True}, {"attn_drop_rate": 0.5}])
def test_attention_that_is_more_than_products_is_computed_whole(arguments: dict[str, Any]) -> None:
    backbone = vit(**arguments)
    whole = backbone(images())["x"]
    with backbone.embedding_only():
        torch.testing.assert_close(backbone(images())["x"], whole, rtol=0, atol=0)
        assert backbone(images(), stop=len(backbone.segments) - 1)["x"].shape[1] > 1


def test_manual_attention_agrees() -> None:
    backbone = vit()
    for module in backbone.modules():
        if isinstance(module, timm.layers.Attention):
            module.fused_attn = False
    whole = backbone(images())["x"]
    with backbone.embedding_only():
        torch.testing.assert_close(backbone(images())["x"], whole, rtol=1e-4, atol=1e-5)


def test_the_flag_falls_also_after_a_failure() -> None:
    backbone = vit()
    with pytest.raises(RuntimeError, match=r"shape|size"), backbone.embedding_only():
        backbone({"x": torch.zeros(1, 7)}, 1)
    assert not any(module.alone for module in backbone.modules() if isinstance(module, LastBlock))


def test_what_looks_at_other_tokens_is_left_alone() -> None:
    def has(make: Callable[[], ImageBackbone]) -> bool:
        return any(isinstance(module, LastBlock) for module in make().modules())

    assert has(vit)
    assert not has(lambda: vit("test_vit2"))  # the mean of all tokens
    assert not has(lambda: vit("test_vit3"))  # attention over them
    assert not has(lambda: vit(global_pool="avg"))


def test_an_adapter_on_the_projection_is_not_passed_by() -> None:
    pytest.importorskip("peft")
    backbone = vit()
    inject(backbone, len(backbone.segments) - 2, "lora", 4, 0)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:
                parameter += 0.1
    whole = backbone(images())["x"]
    with backbone.embedding_only():
        torch.testing.assert_close(backbone(images())["x"], whole)


def test_dropout_of_attention_stays_in_force() -> None:
    backbone = vit(attn_drop_rate=0.5)
    block = backbone.segments[backbone.segment_names[-2]]
    block.train()
    with backbone.embedding_only():
        torch.manual_seed(0)
        once = backbone(images())["x"]
        again = backbone(images())["x"]
    assert not torch.allclose(once, again)
