"""The catalogue of image backbones: its facts against timm's metadata and against networks counted anew."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tl_image import catalogue as module
from tl_image.catalogue import catalogue

from tl_core import PRESETS, BackboneSpec
from tl_core.licences import licence_kind

HUB = [spec for spec in catalogue() if spec.source == "hub"]
FOLDER = Path(module.__file__).parent
BUILT = [  # a convolutional network of each kind, a transformer, one that is a single segment
    "mobilenetv3_small_100.lamb_in1k",
    "mobilenetv4_conv_small.e2400_r224_in1k",
    "fastvit_t8.apple_dist_in1k",
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "convnext_nano.in12k_ft_in1k",
]


def named(name: str) -> BackboneSpec:
    return next(spec for spec in HUB if spec.name == name)


def rows(table: str) -> list[dict[str, str]]:
    with (FOLDER / table).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(name="counting", scope="module")
def counting_fixture() -> ModuleType:
    """The script that fills in the table; it lies in no package."""
    found = importlib.util.spec_from_file_location("counting", FOLDER.parent / "counting.py")
    assert found is not None
    assert found.loader is not None
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    return script


def test_every_row_is_what_timm_states(counting: ModuleType) -> None:
    for row in rows("backbones.csv"):
        stated = {key: str(value) for key, value in counting.stated(row["name"]).items()}
        assert stated == {key: row[key] for key in stated}, row["name"]


@pytest.mark.parametrize("name", BUILT)
def test_what_is_built_is_what_was_counted(counting: ModuleType, name: str) -> None:
    spec = named(name)
    assert counting.counted(name) == {"params": spec.params, "flops": spec.flops, "features": spec.feature_dim}
    backbone = spec.build(random_seed=0)
    assert backbone.feature_dim == spec.feature_dim
    assert sum(p.numel() for p in backbone.parameters()) == spec.params
    assert backbone.preprocessing.size == (spec.takes["height"], spec.takes["width"])
    assert backbone.identity.weights.startswith("random-")
    assert backbone.identity.revision is None


def test_published_operations() -> None:
    """Multiply-adds as the papers give them: ResNet-50 4.1 G, ViT-S/16 4.6 G, ViT-B/16 17.6 G, ConvNeXt-T 4.5 G."""
    published = {
        "resnet50.a1_in1k": 4.1,
        "vit_small_patch16_224.augreg_in21k_ft_in1k": 4.6,
        "vit_base_patch16_224.augreg2_in21k_ft_in1k": 17.6,
        "convnext_tiny.in12k_ft_in1k": 4.5,
    }
    for name, multiply_adds in published.items():
        assert (named(name).flops or 0) / 2e9 == pytest.approx(multiply_adds, rel=0.02)


def test_the_starters_operations() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    spec = next(spec for spec in catalogue() if spec.name == "starter-image")
    backbone = spec.build(random_seed=0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone({"x": torch.zeros(1, 3, spec.takes["height"], spec.takes["width"], dtype=torch.uint8)})
    assert counter.get_total_flops() == spec.flops


def test_nothing_is_left_open() -> None:
    assert len(HUB) >= 45
    for spec in HUB:
        assert spec.params, spec.name
        assert spec.flops, spec.name
        assert spec.feature_dim, spec.name
        assert spec.licence, spec.name
        assert spec.pretrained_on, spec.name
        assert spec.takes["channels"] == 3, spec.name
        assert spec.revision is None  # never invented


def test_the_words_for_the_data_have_sources_and_are_used() -> None:
    words = {row["key"]: row for row in rows("pretraining.csv")}
    assert {row["pretraining"] for row in rows("backbones.csv")} == words.keys()
    assert all(row["words"] and row["source"] for row in words.values())


def test_the_words_agree_with_the_tag() -> None:
    parts = {
        "in1k": "ImageNet-1k",
        "in12k": "ImageNet-12k",
        "in21k": "ImageNet-21k",
        "in22k": "ImageNet-22k",
        "dino": "DINO",
        "lvd142m": "LVD-142M",
        "lvd1689m": "LVD-1689M",
        "laion2b": "LAION-2B",
        "webli": "WebLI",
        "openai": "OpenAI",
        "fcmae": "FCMAE",
    }
    for spec in HUB:
        tag = spec.name.partition(".")[2].split("_")
        for part, words in parts.items():
            if part in tag:
                assert words in str(spec.pretrained_on), spec.name


def test_presets_are_small_and_free_to_use() -> None:
    for preset in PRESETS:
        members = [spec for spec in catalogue() if preset in spec.presets]
        assert 2 <= len(members) <= 5, preset
        assert {licence_kind(spec.licence) for spec in members} == {"permissive"}, preset
        assert all(spec.source == "hub" for spec in members), preset  # the starter competes only where it is named
    names = {name for names in module._PRESETS.values() for name in names}
    assert names <= {spec.name for spec in HUB}


def test_a_slower_preset_costs_more() -> None:
    for device in ("cpu", "cuda"):
        costs = [
            sum(spec.flops or 0 for spec in HUB if f"{device}/{name}" in spec.presets)
            for name in ("fast", "balanced", "best")
        ]
        assert costs == sorted(costs)


def test_from_small_to_large() -> None:
    params = [spec.params or 0 for spec in catalogue()]
    assert params == sorted(params)
    assert len({spec.name for spec in catalogue()}) == len(params)


def test_listing_imports_no_library() -> None:
    code = (
        "import tl_image, sys; tl_image.tl_backbones(); "
        "heavy = {'timm', 'torchvision', 'transformers', 'PIL'} & sys.modules.keys(); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
