"""Well-known timm models by name and the embedded starter: facts only, no weights are read before `build()`."""

from __future__ import annotations

from pathlib import Path

from tl_core import Backbone, BackboneSpec, read_json

_IN1K = "ImageNet-1k"
_IN12K = "ImageNet-12k, then ImageNet-1k"
_IN21K = "ImageNet-21k, then ImageNet-1k"
_LVD = "LVD-142M, self-supervised"
_CLIP = "OpenAI's 400 million image-text pairs"

_MODELS = (
    # name, parameters without classifier, embedding width, input side, pretrained on
    ("mobilenetv3_small_100.lamb_in1k", 1_517_856, 1024, 224, _IN1K),
    ("efficientnet_b0.ra_in1k", 4_007_548, 1280, 224, _IN1K),
    ("mobilenetv3_large_100.ra_in1k", 4_202_032, 1280, 224, _IN1K),
    ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", 5_524_416, 192, 224, _IN21K),
    ("resnet18.a1_in1k", 11_176_512, 512, 224, _IN1K),
    ("tf_efficientnetv2_s.in21k_ft_in1k", 20_177_488, 1280, 300, _IN21K),
    ("vit_small_patch16_224.augreg_in21k_ft_in1k", 21_665_664, 384, 224, _IN21K),
    ("vit_small_patch14_dinov2.lvd142m", 22_056_192, 384, 518, _LVD),
    ("resnet50.a1_in1k", 23_508_032, 2048, 224, _IN1K),
    ("convnext_tiny.in12k_ft_in1k", 27_820_128, 768, 224, _IN12K),
    ("convnext_small.in12k_ft_in1k", 49_454_688, 768, 224, _IN12K),
    ("vit_base_patch16_224.augreg2_in21k_ft_in1k", 85_798_656, 768, 224, _IN21K),
    ("vit_base_patch16_clip_224.openai", 85_799_424, 768, 224, _CLIP),
    ("vit_base_patch14_dinov2.lvd142m", 86_579_712, 768, 518, _LVD),
)


# a light and a stronger one that a CPU still carries: what competes when the user names none
_DEFAULTS = ("mobilenetv3_large_100.ra_in1k", "vit_small_patch16_224.augreg_in21k_ft_in1k")


def catalogue() -> list[BackboneSpec]:
    """The models, from small to large. Parameters, widths, sizes and licences are timm's own metadata."""
    return sorted([_starter(), *_timm()], key=lambda spec: spec.params or 0)


def _starter() -> BackboneSpec:
    """The small network inside this package; its config.json names the digest of its weights."""
    facts = read_json(Path(__file__).parent / "starter/config.json").get("provenance") or {}
    return BackboneSpec(
        name="starter-image",
        modality="image",
        source="package",
        location="tl_image/starter",
        builder=_build,
        sha256=facts.get("safetensors_sha256"),
        params=2_164_920,
        feature_dim=384,
        licence=facts.get("licence"),
        pretrained_on=facts.get("pretrained_on"),
        input="RGB 96x96",
    )


def _timm() -> list[BackboneSpec]:
    return [
        BackboneSpec(
            name=name,
            modality="image",
            source="hub",
            location=f"timm/{name}",
            builder=_build,
            params=params,
            feature_dim=feature_dim,
            licence="apache-2.0",  # what timm states for each of them
            pretrained_on=pretrained_on,
            input=f"RGB {side}x{side}",
            options={"architecture": f"timm/{name}"},
            default=name in _DEFAULTS,
        )
        for name, params, feature_dim, side, pretrained_on in _MODELS
    ]


def _build(spec: BackboneSpec, random_seed: int | None) -> Backbone:
    from tl_image.backbones import build

    return build(spec, random_seed)
