"""From what a user types to a backbone's spec: timm names, hub ids, folders, weights files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tl_core import BackboneSpec, UserError, read_json
from tl_image import timm_networks, torchvision_networks
from tl_image.backbones import build
from tl_image.folders import folder_network

_HUB_ID = re.compile(r"(?:hf[-_]hub:)?([\w-][\w.-]*/[\w.-]+)")


def resolve(name: str) -> list[BackboneSpec]:
    """The spec of a name outside the catalogue, or an empty list where it means nothing here.

    A folder; FOLDER/FILE; ARCH@FILE with a timm or torchvision architecture (`torchvision/ARCH@FILE` picks the
    library); a timm model name; `owner/name` or `hf-hub:owner/name` on the hub. Raises UserError where the name is
    clear and what it names is unusable.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(name, path.absolute())
    if path.is_file():
        return _file(name, path.absolute())
    if "@" in name:
        return _architecture_at(name)
    hub = _HUB_ID.fullmatch(name)
    bare = hub[1].removeprefix("timm/") if hub else name
    if "/" not in bare and timm_networks.is_timm(bare):
        return [_timm(name, bare)]
    return [BackboneSpec(name, "image", "hub", hub[1], build)] if hub else []


def _folder(name: str, folder: Path) -> list[BackboneSpec]:
    network = folder_network(folder)
    if network is None:
        return []
    facts = _stated(folder)
    return [
        BackboneSpec(name, "image", "folder", str(folder), build, input=_input(network.preprocessing.size), **facts)
    ]


def _file(name: str, path: Path) -> list[BackboneSpec]:
    network = folder_network(path.parent)
    if network is None:
        raise UserError(
            f"{name} has no config.json beside it that names an image architecture; give the architecture as "
            f"ARCH@FILE, such as resnet18@{name}"
        )
    return [BackboneSpec(name, "image", "file", str(path), build, input=_input(network.preprocessing.size))]


def _architecture_at(name: str) -> list[BackboneSpec]:
    stated, _, file = name.partition("@")
    library, _, architecture = stated.rpartition("/")
    if library in ("", "timm") and timm_networks.is_timm(architecture):
        library = "timm"
    elif library in ("", "torchvision") and torchvision_networks.is_torchvision(architecture):
        library = "torchvision"
    else:
        return []
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"no such weights file: {file} (of the backbone {name})")
    options = {"architecture": f"{library}/{architecture}"}
    return [BackboneSpec(name, "image", "file", str(path.absolute()), build, options=options)]


def _timm(name: str, model: str) -> BackboneSpec:
    cfg = timm_networks.pretrained_cfg(model)
    if cfg is None or not cfg.hf_hub_id:
        raise UserError(f"timm has no weights for {model} on the hub; give a file: {model}@FILE")
    return BackboneSpec(
        name=name,
        modality="image",
        source="hub",
        location=cfg.hf_hub_id,
        builder=build,
        licence=cfg.license,
        input=_input(cfg.input_size[1:]),
        options={"architecture": f"timm/{model.partition('.')[0]}.{cfg.tag}" if cfg.tag else f"timm/{model}"},
    )


def _stated(folder: Path) -> dict[str, Any]:
    """Facts that a folder's config.json states about its weights; absent ones are unknown."""
    config = read_json(folder / "config.json")
    provenance = config.get("provenance") or {}
    return {
        "sha256": provenance.get("safetensors_sha256"),
        "licence": provenance.get("licence"),
        "pretrained_on": provenance.get("pretrained_on"),
    }


def _input(size: tuple[int, ...]) -> str:
    return f"RGB {size[0]}x{size[1]}"
