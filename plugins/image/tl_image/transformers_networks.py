"""transformers' image models as networks, from their folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tl_core import UserError
from tl_image.network import Layout, Network, Segments, Stage, Tensors, describe, fits
from tl_image.preprocessing import Preprocessing, from_data_config, from_image_processor

_DENSE_POOLERS = ("vit", "deit")
"""Their pooler is a tanh layer that image classifiers do not use: left out, the class token is the embedding."""

_OPTIONAL = ("embeddings.mask_token", "embeddings.position_ids")
"""Tensors of some weights files that no embedding depends on."""


def is_image_model(config: Mapping[str, Any]) -> bool:
    """Whether transformers knows the config's model_type as an image classifier or image backbone."""
    from transformers.models.auto import modeling_auto as auto

    known = {*auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, *auto.MODEL_FOR_BACKBONE_MAPPING_NAMES}
    return config.get("model_type") in known


def by_config(config: Mapping[str, Any], folder: Path) -> Network:
    """The network of a transformers folder. Raises UserError where transformers can't read its config."""
    from transformers import AutoConfig

    preprocessing = _preprocessing(config, folder)
    try:
        with _quiet_transformers():
            parsed = AutoConfig.from_pretrained(folder)
    except Exception as error:  # validation, missing keys, unknown types: as many kinds as models
        raise UserError(f"unusable {folder}/config.json: {str(error).splitlines()[0]}") from error
    config = config.get("vision_config") or config  # of a text-and-image model, the image tower
    parsed = getattr(parsed, "vision_config", None) or parsed
    parsed.dtype = torch.float32
    segmenter = any(name.endswith("ForSemanticSegmentation") for name in config.get("architectures") or ())
    return Network(
        architecture=describe("transformers", parsed.model_type, _arguments(parsed, config, segmenter)),
        create=partial(_create, parsed),
        adapt=_adapt,
        split=partial(_split, segmenter=segmenter),
        preprocessing=preprocessing,
        layout=_layout,
    )


def _arguments(parsed: Any, config: Mapping[str, Any], segmenter: bool) -> dict[str, Any]:
    """What the config says about the network itself: no labels, versions or notes."""
    from transformers import PretrainedConfig

    known = type(parsed)().to_dict().keys() - PretrainedConfig().to_dict().keys()
    return {k: config[k] for k in known if k in config} | ({"segmenter": True} if segmenter else {})


def _preprocessing(config: Mapping[str, Any], folder: Path) -> Preprocessing:
    from transformers import AutoImageProcessor

    if (folder / "preprocessor_config.json").is_file():
        try:
            with _quiet_transformers():
                values = AutoImageProcessor.from_pretrained(folder).to_dict()
        except Exception as error:
            raise UserError(f"unusable {folder}/preprocessor_config.json: {str(error).splitlines()[0]}") from error
        return from_image_processor(values, str(folder))
    if "input" in config:
        return from_data_config({**config["input"], "input_size": config["input"].get("size")}, str(folder))
    raise UserError(f"no preprocessor_config.json in {folder}: copy the one that was published with the weights")


def _create(config: Any) -> nn.Module:
    from transformers import AutoModel

    arguments = {"add_pooling_layer": False} if config.model_type in _DENSE_POOLERS else {}
    with _quiet_transformers():
        model: nn.Module = AutoModel.from_config(config, **arguments).float()
    return model


def _adapt(network: nn.Module, tensors: Tensors) -> Tensors:
    """The encoder's own tensors; through transformers' renaming where the file has another version's names."""
    own = _own(network, tensors)
    return own if fits(network, own) else _own(network, _renamed(network, tensors))


def _own(network: Any, tensors: Tensors) -> Tensors:
    """What belongs to the encoder, without the prefix that whole classifiers put before it."""
    mine = {name.split(".")[0] for name in network.state_dict()}
    bare = {k.removeprefix(f"{network.base_model_prefix}."): v for k, v in tensors.items()}
    return {k: v for k, v in bare.items() if k.split(".")[0] in mine and not k.endswith(_OPTIONAL)} | {
        k: v for k, v in network.state_dict().items() if k.endswith(_OPTIONAL)
    }


def _renamed(network: Any, tensors: Tensors) -> Tensors:
    arguments = {"add_pooling_layer": False} if network.config.model_type in _DENSE_POOLERS else {}
    try:
        with _quiet_transformers():
            loaded, found = type(network).from_pretrained(
                None, config=network.config, state_dict=dict(tensors), output_loading_info=True, **arguments
            )
    except Exception:  # other shapes: the plain comparison names them
        return tensors
    renamed = {k: v.float() for k, v in loaded.state_dict().items() if k not in found["missing_keys"]}
    return renamed | {k: torch.empty(0) for k in found["unexpected_keys"]}


def _layout(model: Any) -> Layout:
    """Only of the families that are split."""
    return Layout(prefix=1) if model.config.model_type in ("vit", "dinov2") else Layout()


def _split(model: Any, segmenter: bool) -> Segments:
    families = {"mobilenet_v1": _mobilenet_v1, "mobilenet_v2": _mobilenet_v2, "vit": _vit, "dinov2": _vit}
    family = families.get(model.config.model_type)
    if family is None:
        return [("network", Stage(Whole(model)))]
    return _without_last_conv(family(model)) if segmenter and family is _mobilenet_v2 else family(model)


def _mobilenet_v1(model: Any) -> Segments:
    pairs = zip(model.layer[::2], model.layer[1::2], strict=True)  # depthwise, pointwise
    return [
        ("stem", Stage(model.conv_stem)),
        *((f"block{i}", Stage(*pair)) for i, pair in enumerate(pairs)),
        ("pool", Stage(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))),
    ]


def _mobilenet_v2(model: Any) -> Segments:
    return [
        ("stem", Stage(model.conv_stem)),
        *((f"block{i}", Stage(block)) for i, block in enumerate(model.layer)),
        ("conv_1x1", Stage(model.conv_1x1)),
        ("pool", Stage(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))),
    ]


def _without_last_conv(segments: Segments) -> Segments:
    """A segmenter's head reads the last block: its last convolution was never trained."""
    return [(name, segment) for name, segment in segments if name != "conv_1x1"]


def _vit(model: Any) -> Segments:
    blocks = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
    return [
        ("embed", Stage(model.embeddings)),
        *((f"block{i}", Stage(FirstOutput(block))) for i, block in enumerate(blocks)),
        ("pool", Stage(model.layernorm, ClassToken())),
    ]


class FirstOutput(nn.Module):
    """A block that gives its tensor, alone or first in a tuple, depending on transformers' version."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        out = self.block(x)
        return out[0] if isinstance(out, tuple) else out  # type: ignore[no-any-return]


class ClassToken(nn.Module):
    """[B, T, D] -> [B, D]."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class Whole(nn.Module):
    """An encoder in one piece: its pooled output, else the class token, else the mean over places."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.class_token = any(name.endswith("cls_token") for name, _ in model.named_parameters())

    def forward(self, x: Tensor) -> Tensor:
        out = self.model(pixel_values=x)
        pooled = out.get("pooler_output")
        if pooled is not None:
            return pooled.flatten(1)  # type: ignore[no-any-return]  # [B, D] or [B, D, 1, 1]
        last: Tensor = out.last_hidden_state
        if last.ndim == 4:
            return last.mean(dim=(2, 3))  # [B, D, H, W] -> [B, D]
        return last[:, 0] if self.class_token else last.mean(dim=1)  # [B, T, D] -> [B, D]


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without transformers' own log lines and bars: what is wrong with weights, load_strict says."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
