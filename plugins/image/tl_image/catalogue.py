"""timm models by name and the embedded starter: facts only, neither timm nor weights are touched before `build()`.

backbones.csv has a row for each model, pretraining.csv what its words for the data mean and where they are stated.
`plugins/image/counting.py` writes the former.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from tl_core import Backbone, BackboneSpec, read_json

_HERE = Path(__file__).parent

# few, and unlike one another in data and architecture, so that one of them suits; permissive licences only
_PRESETS = {
    "cpu/fast": (
        "mobilenetv3_small_100.lamb_in1k",
        "mobilenetv4_conv_small.e2400_r224_in1k",
        "mobilenetv3_large_100.ra_in1k",
    ),
    "cpu/balanced": (
        "mobilenetv3_large_100.ra_in1k",
        "convnext_nano.in12k_ft_in1k",
        "vit_small_patch16_224.augreg_in21k_ft_in1k",
    ),
    "cpu/best": (
        "vit_base_patch32_clip_224.laion2b",
        "convnext_tiny.in12k_ft_in1k",
        "vit_small_patch16_224.augreg_in21k_ft_in1k",
        "tf_efficientnetv2_s.in21k_ft_in1k",
    ),
    "cuda/fast": (
        "mobilenetv3_large_100.ra_in1k",
        "convnext_nano.in12k_ft_in1k",
        "vit_small_patch16_224.augreg_in21k_ft_in1k",
    ),
    "cuda/balanced": (
        "convnext_tiny.in12k_ft_in1k",
        "vit_small_patch16_224.augreg_in21k_ft_in1k",
        "vit_base_patch16_224.augreg2_in21k_ft_in1k",
        "vit_base_patch16_clip_224.laion2b",
    ),
    "cuda/best": (
        "vit_base_patch16_siglip_224.v2_webli",
        "convnext_base.clip_laion2b_augreg_ft_in12k_in1k",
        "vit_large_patch16_224.augreg_in21k_ft_in1k",
        "vit_large_patch14_clip_224.laion2b",
        "vit_base_patch14_dinov2.lvd142m",
    ),
}


def catalogue() -> list[BackboneSpec]:
    """The models, from small to large."""
    return sorted([_starter(), *_timm()], key=lambda spec: spec.params or 0)


def _starter() -> BackboneSpec:
    """The small network inside this package; its config.json names the digest of its weights."""
    facts = read_json(_HERE / "starter/config.json").get("provenance") or {}
    return BackboneSpec(
        name="starter-image",
        modality="image",
        source="package",
        location="tl_image/starter",
        builder=_build,
        sha256=facts.get("safetensors_sha256"),
        params=2_164_920,
        flops=219_746_304,
        feature_dim=384,
        licence=facts.get("licence"),
        pretrained_on=facts.get("pretrained_on"),
        **_taking(96, 96),
    )


def _timm() -> list[BackboneSpec]:
    words = {row["key"]: row["words"] for row in _rows("pretraining.csv")}
    return [
        BackboneSpec(
            name=row["name"],
            modality="image",
            source="hub",
            location=row["hub"],
            builder=_build,
            params=int(row["params"]),
            flops=int(row["flops"]),
            feature_dim=int(row["features"]),
            licence=row["licence"] or None,
            pretrained_on=words[row["pretraining"]],
            presets=tuple(preset for preset, names in _PRESETS.items() if row["name"] in names),
            options={"architecture": f"timm/{row['name']}"},
            **_taking(int(row["height"]), int(row["width"])),
        )
        for row in _rows("backbones.csv")
    ]


def _taking(height: int, width: int) -> dict[str, Any]:
    """What a network takes in, in words and as facts."""
    return {"input": f"RGB {height}x{width}", "takes": {"height": height, "width": width, "channels": 3}}


def _rows(table: str) -> list[dict[str, str]]:
    with (_HERE / table).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _build(spec: BackboneSpec, random_seed: int | None) -> Backbone:
    from tl_image.backbones import build

    return build(spec, random_seed)
