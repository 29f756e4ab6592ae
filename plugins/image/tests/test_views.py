"""Views of every family: the state after a segment, pooled over the places of the image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tl_image
import torch
from tl_image import timm_networks, torchvision_networks, transformers_networks
from tl_image.backbones import ImageBackbone, assemble
from tl_image.network import Network
from torch import nn

from tl_core import BackboneSpec, State, random_weights
from tl_core.testing import assert_views

SIDE = 64
VIT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
VIT |= {"image_size": SIDE, "patch_size": 16}


def windows(side: int = SIDE) -> list[State]:
    pixels = torch.randint(0, 256, (3, 3, side, side), generator=torch.Generator().manual_seed(1))
    return [{"x": picture} for picture in pixels.to(torch.uint8)]


def spec_of(network: Network) -> BackboneSpec:
    """A spec whose builds draw the same weights, with statistics that are not the identity."""

    def build(spec: BackboneSpec, seed: int | None) -> ImageBackbone:
        def create() -> nn.Module:
            model = network.create()
            for parameter in model.parameters():
                parameter.data.add_(torch.randn(parameter.shape) * (0.1 if parameter.ndim == 1 else 0.0))
            return model

        return assemble(network, random_weights(create, seed or 0), f"weights {seed}", None)

    return BackboneSpec("tiny", "image", "package", "tl_image", build)


def timm(name: str, **arguments: Any) -> BackboneSpec:
    cfg = {"input_size": (3, SIDE, SIDE)}
    config = {"architecture": name, "pretrained_cfg": cfg, "model_args": arguments}
    return spec_of(timm_networks.by_config(config, Path("a-folder")))


def transformers(model_type: str, tmp_path: Path, **changes: Any) -> BackboneSpec:
    import json

    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type, **changes)
    config.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text()) | {"input": {"size": [3, SIDE, SIDE]}}
    return spec_of(transformers_networks.by_config(values, tmp_path))


SWIN = {"img_size": SIDE, "embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "window_size": 4}


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
    network = torchvision_networks.by_config({"architecture": name, "input": {"size": [3, SIDE, SIDE]}}, Path("here"))
    found = assert_views(spec_of(network), windows())
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
