"""Local model folders: which library their config.json speaks of, and what else it states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_core import read_json
from tl_image.network import Network


def folder_network(folder: Path) -> Network | None:
    """The network of a model folder, None where it holds no image model.

    config.json is timm's (`architecture`, `pretrained_cfg`), transformers' (`model_type`) or, for torchvision,
    `"framework": "torchvision"` with `architecture` and `input`. Raises UserError where it can't be used.
    """
    if not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    library = library_of(config)
    if library == "timm":
        from tl_image import timm_networks

        return timm_networks.by_config(config, folder)
    if library == "torchvision":
        from tl_image import torchvision_networks

        return torchvision_networks.by_config(config, folder)
    if library == "transformers":
        from tl_image import transformers_networks

        return transformers_networks.by_config(config, folder)
    return None


def library_of(config: Mapping[str, Any]) -> str | None:
    """timm, torchvision or transformers; None where the config is another modality's or unknown."""
    if config.get("modality", "image") != "image" or "frontend" in config:
        return None
    framework = config.get("framework")
    if framework == "torchvision":
        return "torchvision"
    if framework == "timm" or ("architecture" in config and "pretrained_cfg" in config):
        return "timm"
    if "model_type" in config:
        from tl_image.transformers_networks import is_image_model

        return "transformers" if is_image_model(config) else None
    return None
