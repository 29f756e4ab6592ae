"""Tiny model folders of several families, with random weights and a small vocabulary, made where a test needs one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

WORDS = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "a", "my", "card", "is", "not", "working", "refund", "please", "where",
    "order", "cancel", "now", "slow", "app",
)  # fmt: skip
SIZES = {
    "vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 48, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {"pad_token_id": 0},
    "xlm-roberta": {},
    "camembert": {},
    "electra": {"embedding_size": 8},
    "distilbert": {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2},
    "mpnet": {"pad_token_id": 1},
    "albert": {"embedding_size": 8},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
}

MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """make_folder("bert", wide=True, **config): a folder with config.json, model.safetensors and tokenizer.json."""

    def make(model_type: str, *, task: str | None = None, name: str = "model", **changes: Any) -> Path:
        import transformers
        from safetensors.torch import save_file

        folder = tmp_path / name
        folder.mkdir()
        values = {**SIZES, **FAMILIES[model_type], **changes}
        config = transformers.CONFIG_MAPPING[model_type](**values)
        encoder = transformers.AutoModelForTextEncoding if model_type == "t5" else transformers.AutoModel
        kind = getattr(transformers, task) if task else encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = kind.from_config(config)
            for value in model.parameters():  # the library starts biases at 0, which would hide a lost one
                value.data += 0.1 * torch.randn(value.shape)
        tensors = {k: v.contiguous().clone() for k, v in model.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
        write_tokenizer(folder, int(config.pad_token_id))
        return folder

    return make


def write_tokenizer(folder: Path, pad: int = 0) -> None:
    """A word-level tokenizer with [CLS] and [SEP]; the unknown word takes id 1, or 0 where 1 is the padding."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = {word: index for index, word in enumerate(WORDS)}
    if pad == 1:
        words["[PAD]"], words["[UNK]"] = 1, 0
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def write_modules(folder: Path, pooling: dict[str, Any], *more: str) -> None:
    """Turn a transformers folder into a sentence-transformers one: modules.json and the pooling's config."""
    kinds = ["Transformer", "Pooling", *more]
    paths = ["" if kind == "Transformer" else f"{i}_{kind}" for i, kind in enumerate(kinds)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    for path in paths[1:]:
        (folder / path).mkdir()
    facts = {"word_embedding_dimension": SIZES["hidden_size"], **pooling}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(facts), encoding="utf-8")
