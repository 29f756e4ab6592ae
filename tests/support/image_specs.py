"""Networks of every family as specs, small where their library has it so, with random weights; and windows for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tl_image import timm_networks, torchvision_networks, transformers_networks
from tl_image.backbones import ImageBackbone, assemble
from tl_image.network import Network
from torch import nn

from tl_core import BackboneSpec, State, random_weights

SIDE = 64
VIT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
VIT |= {"image_size": SIDE, "patch_size": 16}
SWIN = {"img_size": SIDE, "embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "window_size": 4}


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


def torchvision(name: str) -> BackboneSpec:
    """A network of torchvision's, as its folder says."""
    values = {"architecture": name, "input": {"size": [3, SIDE, SIDE]}}
    return spec_of(torchvision_networks.by_config(values, Path("here")))


def transformers(model_type: str, tmp_path: Path, **changes: Any) -> BackboneSpec:
    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type, **changes)
    config.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text()) | {"input": {"size": [3, SIDE, SIDE]}}
    return spec_of(transformers_networks.by_config(values, tmp_path))
