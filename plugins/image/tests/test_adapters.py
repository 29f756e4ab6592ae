"""Adapters in every family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tl_image import timm_networks, torchvision_networks, transformers_networks
from tl_image.backbones import ImageBackbone, assemble
from tl_image.network import Network

from tl_core import BackboneSpec, State, random_weights
from tl_core.testing import assert_adapters

SIDE = 64
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VIT |= {"image_size": SIDE, "patch_size": 16}
SWIN = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "window_size": 4}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "vit": VIT,
    "dinov2": VIT,
    "mobilenet_v1": {"depth_multiplier": 0.25, "min_depth": 8},
    "mobilenet_v2": {"depth_multiplier": 0.25, "min_depth": 8},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    "swin": SWIN | {"image_size": SIDE, "depths": [1, 1], "num_heads": [1, 2]},
}


def windows() -> list[State]:
    pixels = torch.randint(0, 256, (3, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1))
    return [{"x": picture} for picture in pixels.to(torch.uint8)]


def spec_of(network: Network) -> BackboneSpec:
    def build(spec: BackboneSpec, seed: int | None) -> ImageBackbone:
        return assemble(network, random_weights(network.create, seed or 0), f"weights {seed}", None)

    return BackboneSpec("tiny", "image", "package", "tl_image", build)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_resnet", {}),
        ("test_vit", {"img_size": SIDE}),
        ("test_efficientnet", {}),
        ("test_convnext", {}),
        ("mobilenetv3_small_050", {}),
        ("tf_mobilenetv3_small_075", {}),
        ("swin_tiny_patch4_window7_224", SWIN | {"img_size": SIDE}),
    ],
)
def test_timm(name: str, arguments: dict[str, Any]) -> None:
    config = {"architecture": name, "pretrained_cfg": {"input_size": (3, SIDE, SIDE)}, "model_args": arguments}
    assert assert_adapters(spec_of(timm_networks.by_config(config, Path("a-folder"))), windows())


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "densenet121"])
def test_torchvision(name: str) -> None:
    values = {"architecture": name, "input": {"size": [3, SIDE, SIDE]}}
    assert assert_adapters(spec_of(torchvision_networks.by_config(values, Path("here"))), windows())


@pytest.mark.parametrize("model_type", TRANSFORMERS)
def test_transformers(model_type: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.for_model(model_type, **TRANSFORMERS[model_type]).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text()) | {"input": {"size": [3, SIDE, SIDE]}}
    assert assert_adapters(spec_of(transformers_networks.by_config(values, tmp_path)), windows())
