"""Adapters in every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from image_specs import SIDE, SWIN, VIT, timm, torchvision, transformers, windows

from tl_core.testing import assert_adapters

TRANSFORMERS: dict[str, dict[str, Any]] = {
    "vit": VIT,
    "dinov2": VIT,
    "mobilenet_v1": {"depth_multiplier": 0.25, "min_depth": 8},
    "mobilenet_v2": {"depth_multiplier": 0.25, "min_depth": 8},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "convnext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
    "swin": {"embed_dim": 24, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "image_size": SIDE},
}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_resnet", {}),
        ("test_vit", {"img_size": SIDE}),
        ("test_efficientnet", {}),
        ("test_convnext", {}),
        ("mobilenetv3_small_050", {}),
        ("tf_mobilenetv3_small_075", {}),
        ("swin_tiny_patch4_window7_224", SWIN),
    ],
)
def test_timm(name: str, arguments: dict[str, Any]) -> None:
    assert assert_adapters(timm(name, **arguments), windows())


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "densenet121"])
def test_torchvision(name: str) -> None:
    assert assert_adapters(torchvision(name), windows())


@pytest.mark.parametrize("model_type", TRANSFORMERS)
def test_transformers(model_type: str, tmp_path: Path) -> None:
    assert assert_adapters(transformers(model_type, tmp_path, **TRANSFORMERS[model_type]), windows())
