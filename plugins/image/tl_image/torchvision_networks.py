"""torchvision's classifiers as networks, cut along their layers or their `features` list."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from tl_core import UserError
from tl_image.network import Network, Segments, Stage, Tensors
from tl_image.preprocessing import Preprocessing, from_data_config

_HEADS = {"fc", "classifier", "head", "heads", "AuxLogits", "aux1", "aux2"}
"""What torchvision calls its classifiers: dropped with all that lies under them."""


def is_torchvision(name: str) -> bool:
    """Whether torchvision has a classifier of this name."""
    import torchvision

    return name in torchvision.models.list_models(torchvision.models)


def by_name(name: str, weights: str) -> Network:
    """The network of a torchvision classifier, prepared for as torchvision says for its weights.

    weights: the name of the weights file, which tells torchvision's versions apart; any other name takes the
    numbers of its default version.
    """
    import torchvision

    versions = list(torchvision.models.get_model_weights(name))
    version = next((v for v in versions if v.url.endswith(f"/{weights}")), versions[-1])
    transform = version.transforms()
    size, scale = transform.crop_size[0], transform.resize_size[0]
    return _network(
        name,
        Preprocessing(
            size=(size, size),
            resize="short",
            scale=(scale, scale),
            interpolation=transform.interpolation.value,
            mean=tuple(transform.mean),
            std=tuple(transform.std),
        ),
    )


def by_config(config: Mapping[str, Any], folder: Path) -> Network:
    """The network of a folder with `"framework": "torchvision"`, an `architecture` and its `input` numbers."""
    name = str(config.get("architecture"))
    if not is_torchvision(name):
        raise UserError(f"{folder}/config.json names architecture '{name}', unknown to torchvision's classifiers")
    values = config.get("input") or {}
    return _network(name, from_data_config({**values, "input_size": values.get("size")}, str(folder)))


def _network(name: str, preprocessing: Preprocessing) -> Network:
    return Network(f"torchvision/{name}", partial(_create, name), _adapt, _split, preprocessing)


def _create(name: str) -> nn.Module:
    import torchvision

    # these two warn that their default initialisation is slow unless told
    arguments = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **arguments)  # type: ignore[no-any-return]


def _adapt(network: nn.Module, tensors: Tensors) -> Tensors:
    """The classifier keeps its own values: it is no part of the segments."""
    kept = {k: v for k, v in tensors.items() if k.split(".")[0] not in _HEADS}
    return kept | {k: v for k, v in network.state_dict().items() if k.split(".")[0] in _HEADS}


def _split(model: Any) -> Segments:
    from torchvision import models

    if isinstance(model, models.ResNet):
        layers = (model.layer1, model.layer2, model.layer3, model.layer4)
        return [
            ("stem", Stage(model.conv1, model.bn1, model.relu, model.maxpool)),
            *((f"layer{i}", Stage(layer)) for i, layer in enumerate(layers, 1)),
            ("pool", Stage(model.avgpool, nn.Flatten(1))),
        ]
    listed = (
        models.AlexNet, models.ConvNeXt, models.DenseNet, models.EfficientNet, models.MobileNetV2,
        models.MobileNetV3, models.SqueezeNet, models.VGG,
    )  # fmt: skip
    if isinstance(model, listed):
        end = [nn.ReLU()] if isinstance(model, models.DenseNet) else []  # its forward() has it outside the list
        return [*_features(model.features), ("pool", Stage(*end, nn.AdaptiveAvgPool2d(1), nn.Flatten(1)))]
    _drop_last_linear(model)
    return [("network", Stage(model))]


def _features(layers: nn.Sequential) -> Segments:
    """One segment for each entry that holds weights, together with the weightless ones behind it."""
    groups: list[tuple[str, list[nn.Module]]] = []
    for name, layer in layers.named_children():
        if not groups or next(layer.parameters(), None) is not None:
            groups.append((name, []))
        groups[-1][1].append(layer)
    return [(f"features{name}" if name.isdigit() else name, Stage(*group)) for name, group in groups]


def _drop_last_linear(model: nn.Module) -> None:
    name = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
