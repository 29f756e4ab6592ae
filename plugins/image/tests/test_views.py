"""Views of every family: the state after a segment, pooled over the places of the image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tl_image
import torch
from image_specs import SIDE, SWIN, VIT, timm, torchvision, transformers, windows

from tl_core.testing import assert_views


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("test_resnet", {}, ["stem", "layer1", "layer2", "layer3"]),  # layer4's mean is the embedding itself
        ("test_efficientnet", {}, ["stem", *(f"blocks{i}" for i in range(5))]),
        ("mobilenetv3_small_050", {}, ["stem", *(f"blocks{i}" for i in range(6))]),
        ("test_convnext", {}, ["stem", *(f"stage{i}" for i in range(4))]),
        ("regnetx_002", {}, ["stem", "s1", "s2", "s3"]),
        ("swin_tiny_patch4_window7_224", SWIN, ["embed", *(f"layers{i}" for i in range(4))]),
        ("test_vit", {"img_size": SIDE}, ["embed", *(f"block{i}" for i in range(6)), "mean"]),
        ("test_byobnet", {}, []),  # one segment
    ],
)
def test_timm(name: str, arguments: dict[str, Any], expected: list[str]) -> None:
    assert assert_views(timm(name, **arguments), windows()) == expected


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "densenet121"])
def test_torchvision(name: str) -> None:
    found = assert_views(torchvision(name), windows())
    assert len(found) > 3
    assert "mean" not in found


@pytest.mark.parametrize("model_type", ["vit", "dinov2"])
def test_transformers(model_type: str, tmp_path: Path) -> None:
    spec = transformers(model_type, tmp_path, **VIT)
    assert assert_views(spec, windows()) == ["embed", "block0", "block1", "block2", "mean"]


def test_channels_are_last_in_swin_and_the_class_token_stays_out() -> None:
    state = {"x": torch.rand(2, 4, 4, 24)}
    swin = timm("swin_tiny_patch4_window7_224", **SWIN).build()
    torch.testing.assert_close(swin.pooled(state), state["x"].mean(dim=(1, 2)))
    resnet = timm("test_resnet").build()
    torch.testing.assert_close(resnet.pooled(state), state["x"].mean(dim=(2, 3)))
    vit, tokens = timm("test_vit", img_size=SIDE).build(), {"x": torch.rand(2, 17, 64)}
    torch.testing.assert_close(vit.pooled(tokens), tokens["x"][:, 1:].mean(dim=1))


def test_a_folder_and_a_weights_file_have_views(timm_folder: Callable[..., Path]) -> None:
    from tl_core.registry import load_registry

    registry, folder = load_registry([("tl_image", tl_image)]), timm_folder()
    for name in (folder, folder / "model.safetensors", f"test_resnet@{folder / 'model.safetensors'}"):
        spec = registry.backbone(f"{name}#layer3", "image")
        assert spec.name.endswith("#layer3")
        assert spec.build().segment_names == ("stem", "layer1", "layer2", "layer3", "pool")
