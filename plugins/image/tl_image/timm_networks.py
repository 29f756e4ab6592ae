"""timm's models as networks: by name, by the config.json that timm saves, and cut along their block lists."""

from __future__ import annotations

import copy
import difflib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tl_core import UserError
from tl_image.class_token import LastBlock, is_plain
from tl_image.network import Layout, Network, Segments, Stage, Tensors, describe, fits, without_heads
from tl_image.preprocessing import from_data_config


def is_timm(name: str) -> bool:
    """Whether timm has a model of this name (`resnet18` or, with the tag of its weights, `resnet18.a1_in1k`)."""
    import timm

    return bool(timm.is_model(name))


def pretrained_cfg(name: str) -> Any:
    """timm's metadata of a model's (default) weights. Raises UserError on an unknown tag."""
    import timm

    architecture, _, tag = name.partition(".")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{architecture}.*")]
        raise UserError(f"timm's {architecture} has no weights '{tag}'; there are: {', '.join(tags)}") from error


def by_name(name: str) -> Network:
    """The network of a timm model name, prepared for as timm says for its (default) weights."""
    cfg = pretrained_cfg(name)
    return _network(name.partition(".")[0], {}, cfg.to_dict() if cfg else {}, f"timm's {name}")


def by_config(config: Mapping[str, Any], folder: Path) -> Network:
    """The network of a config.json as timm saves it. Raises UserError where timm does not know its architecture."""
    import timm

    architecture = str(config.get("architecture")).partition(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UserError(f"{folder}/config.json names architecture '{architecture}', unknown to timm{hint}")
    return _network(architecture, config.get("model_args") or {}, config.get("pretrained_cfg") or {}, str(folder))


def _network(architecture: str, arguments: Mapping[str, Any], cfg: Mapping[str, Any], where: str) -> Network:
    import timm

    own = inspect.signature(timm.create_model).parameters.keys() | {"num_classes"}  # never a path to other weights
    arguments = {k: v for k, v in arguments.items() if k not in own}
    if arguments.get("in_chans", 3) != 3:
        raise UserError(f"{where} takes images of {arguments['in_chans']} channels; only RGB (3) is supported")
    size = arguments.get("img_size")
    return Network(
        architecture=describe("timm", architecture, arguments),
        create=partial(_create, architecture, arguments, cfg, where),
        adapt=_adapt,
        split=_split,
        preprocessing=from_data_config(cfg, where, size if isinstance(size, int) else None),
        layout=_layout,
    )


def _create(architecture: str, arguments: Mapping[str, Any], cfg: Mapping[str, Any], where: str) -> nn.Module:
    import timm

    sources = {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source"}
    known = {field.name for field in fields(timm.models.PretrainedCfg)} - sources
    own_cfg = {k: v for k, v in cfg.items() if k in known}  # the name of the classifier, a fixed input size
    try:
        return timm.create_model(  # type: ignore[no-any-return]
            architecture, pretrained=False, pretrained_cfg=own_cfg or None, num_classes=0, **arguments
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"timm can't make {architecture} with the model_args of {where}: {error}") from error


def _adapt(network: nn.Module, tensors: Tensors) -> Tensors:
    """Without the classifier; through timm's converter for the architecture where the names are others'."""
    cfg: Mapping[str, Any] = network.pretrained_cfg or {}  # type: ignore[assignment]
    classifier = cfg.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else classifier
    heads = {name.split(".")[0] for name in names} | {"head", "fc", "classifier"}
    own = without_heads(network, tensors, heads)
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if fits(network, own) or convert is None:
        return own
    try:
        converted = convert(dict(tensors), network)
    except Exception:  # made for another network's tensors: the plain comparison says it better
        return own
    return without_heads(network, converted, heads)


def _layout(model: Any) -> Layout:
    """Only of the families that are split."""
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.swin_transformer_v2 import SwinTransformerV2
    from timm.models.vision_transformer import VisionTransformer

    if type(model) in (SwinTransformer, SwinTransformerV2):
        return Layout(channels_last=True)
    return Layout(prefix=model.num_prefix_tokens) if type(model) is VisionTransformer else Layout()


def _split(model: nn.Module) -> Segments:
    from timm.models.convnext import ConvNeXt
    from timm.models.efficientnet import EfficientNet
    from timm.models.mobilenetv3 import MobileNetV3
    from timm.models.regnet import RegNet
    from timm.models.resnet import ResNet
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.swin_transformer_v2 import SwinTransformerV2
    from timm.models.vision_transformer import VisionTransformer

    families = {
        ResNet: _resnet,
        EfficientNet: _efficientnet,
        MobileNetV3: _mobilenetv3,
        ConvNeXt: _convnext,
        RegNet: _regnet,
        SwinTransformer: _swin,
        SwinTransformerV2: _swin,
        VisionTransformer: _vit,
    }
    family = families.get(type(model))  # exact: a subclass may compute something else between its blocks
    return family(model) if family else [("network", Stage(Features(model), Pooled(model)))]


def _resnet(model: Any) -> Segments:
    return [
        ("stem", Stage(model.conv1, model.bn1, model.act1, model.maxpool)),
        *((f"layer{i}", Stage(layer)) for i, layer in enumerate(_layers(model), 1)),
        ("pool", Stage(model.global_pool)),
    ]


def _layers(model: Any) -> list[nn.Module]:
    return [model.layer1, model.layer2, model.layer3, model.layer4]


def _efficientnet(model: Any) -> Segments:
    return [
        ("stem", Stage(model.conv_stem, model.bn1)),
        *((f"blocks{i}", Stage(block)) for i, block in enumerate(model.blocks)),
        ("conv_head", Stage(model.conv_head, model.bn2)),
        ("pool", Stage(model.global_pool)),
    ]


def _mobilenetv3(model: Any) -> Segments:
    return [
        ("stem", Stage(model.conv_stem, model.bn1)),
        *((f"blocks{i}", Stage(block)) for i, block in enumerate(model.blocks)),
        ("pool", Stage(model.global_pool)),
        ("conv_head", Stage(model.conv_head, model.norm_head, model.act2, model.flatten)),
    ]


def _convnext(model: Any) -> Segments:
    return [
        ("stem", Stage(model.stem)),
        *((f"stage{i}", Stage(stage)) for i, stage in enumerate(model.stages)),
        ("pool", Stage(model.norm_pre, model.head)),
    ]


def _regnet(model: Any) -> Segments:
    return [
        ("stem", Stage(model.stem)),
        *((f"s{i}", Stage(stage)) for i, stage in enumerate((model.s1, model.s2, model.s3, model.s4), 1)),
        ("pool", Stage(model.final_conv, model.head)),
    ]


def _swin(model: Any) -> Segments:
    return [
        ("embed", Stage(model.patch_embed)),
        *((f"layers{i}", Stage(layer)) for i, layer in enumerate(model.layers)),
        ("pool", Stage(model.norm, model.head)),
    ]


def _vit(model: Any) -> Segments:
    """Embedding and pooling are the model itself without what the other segments hold."""
    blocks = list(model.blocks)
    model.blocks = nn.Sequential()
    tail = copy.deepcopy(model)
    tail.patch_embed = tail.norm_pre = tail.patch_drop = nn.Identity()
    tail.cls_token = tail.reg_token = tail.pos_embed = None
    model.norm = model.fc_norm = nn.Identity()
    by_attention, model.attn_pool = model.attn_pool is not None, None
    norm, tail.norm = tail.norm, nn.Identity()
    if model.global_pool == "token" and not by_attention and blocks and is_plain(blocks[-1]):
        blocks[-1] = LastBlock(blocks[-1])
    return [
        ("embed", Stage(Features(model))),
        *((f"block{i}", Stage(block)) for i, block in enumerate(blocks)),
        ("pool", Stage(norm, Pooled(tail))),
    ]


class Features(nn.Module):
    """A timm model up to its head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_features(x)  # type: ignore[no-any-return]


class Pooled(nn.Module):
    """A timm model's head up to its classifier."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_head(x, pre_logits=True)  # type: ignore[no-any-return]
