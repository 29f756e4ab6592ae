from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
from tl_image.catalogue import catalogue

from tl_core import BackboneSpec

HUB = [spec for spec in catalogue() if spec.source == "hub"]


@pytest.mark.parametrize("spec", HUB, ids=lambda spec: spec.name)
def test_facts_agree_with_timm(spec: BackboneSpec) -> None:
    import timm

    cfg = timm.get_pretrained_cfg(spec.name)
    with torch.device("meta"):
        model = timm.create_model(spec.name, pretrained=False, num_classes=0)
    assert spec.location == cfg.hf_hub_id
    assert spec.licence == cfg.license
    assert spec.input == f"RGB {cfg.input_size[1]}x{cfg.input_size[2]}"
    assert spec.feature_dim == model.head_hidden_size
    assert spec.params == sum(p.numel() for p in model.parameters())
    stated = {
        "in12k": "ImageNet-12k",
        "in21k": "ImageNet-21k",
        "in1k": "ImageNet-1k",
        "lvd142m": "LVD-142M",
        "openai": "OpenAI",
    }
    for part, words in stated.items():
        assert (part in cfg.tag) == (words in str(spec.pretrained_on)), (cfg.tag, spec.pretrained_on)


def test_from_small_to_large() -> None:
    params = [spec.params or 0 for spec in catalogue()]
    assert params == sorted(params)


def test_random_twin_needs_no_files() -> None:
    spec = HUB[0]
    twin = spec.build(random_seed=2)
    assert twin.feature_dim == spec.feature_dim
    assert twin.identity.weights.startswith("random-")
    assert twin.identity.revision is None


def test_import_takes_milliseconds() -> None:
    code = "import tl_core, pluggy, time; t = time.perf_counter(); import tl_image; print(time.perf_counter() - t)"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.2
    assert time.perf_counter() - started < 30
