"""Small pictures and small models, made in the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture
def photo() -> Callable[..., np.ndarray]:
    """A smooth random picture, uint8 [height, width, 3]."""

    def make(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))

    return make


@pytest.fixture
def timm_folder(tmp_path: Path) -> Callable[..., Path]:
    """A folder as timm saves it, of a randomly initialised model with a classifier of ten classes."""

    def make(architecture: str = "test_resnet", name: str = "weights", **changes: Any) -> Path:
        import timm

        arguments = changes.get("model_args", {})
        torch.manual_seed(5)
        model = timm.create_model(architecture, pretrained=False, num_classes=10, **arguments)
        for module in model.modules():  # fresh batch norms would be the identity in eval mode
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
        config = {
            "architecture": architecture,
            "num_classes": 10,
            "pretrained_cfg": {
                "input_size": [3, 64, 64],
                "crop_pct": 0.9,
                "interpolation": "bicubic",
                "num_classes": 10,
            },
        } | changes
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
        return folder

    return make
