"""A small run that can be changed in one thing at a time: data, weights folder, config, store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tl_core.config import RunConfig, validate
from tl_core.manifest import Manifest
from tl_core.registry import Registry
from tl_core.steps import extract, select, version
from tl_core.store import FeatureStore, Space
from tl_core.workspace import Workspace

WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "a", "my", "card", "is", "not", "working", "refund", "please", "where",
    "order", "cancel", "now", "slow", "app",
]  # fmt: skip
CLASSES = ("card", "order", "app")
PER_CLASS = 8


@dataclass(frozen=True)
class Rows:
    """What a run asked of the store. computed: by role; features: rows of the backbone, by the sample's digest."""

    computed: dict[str, int]
    space: Space
    features: dict[str, np.ndarray]


@dataclass
class Lab:
    """A project folder that holds data/, weights/ and store/; the last two steps' settings can be overridden."""

    root: Path
    registry: Registry
    settings: dict[str, Any] = field(default_factory=dict)
    data: Path = Path("data")
    store: Path = Path("store")

    def copied(self, root: Path) -> Lab:
        """The same lab in another folder, to be changed there."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return Lab(root, self.registry, dict(self.settings))

    def files(self) -> list[Path]:
        return sorted((self.root / self.data).rglob("*.*"))

    def weights(self, name: str) -> Path:
        return self.root / "weights" / name

    def edit_json(self, name: str, **values: Any) -> None:
        """Change values in a JSON file of the weights folder, which is made where it is not there."""
        path = self.weights(name)
        old = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**old, **values}))

    def config(self) -> RunConfig:
        values: dict[str, Any] = {
            "data": {"path": str(self.root / self.data)},
            "select": {"backbones": ["./weights"], "sample": 50, "folds": 2},
            "extract": {"engine": "torch", "precision": "float32"},
        }
        for key, value in self.settings.items():
            section, _, name = key.partition(".")
            values[section][name] = value
        return validate(values)

    def run(self, store: Path | None = None) -> Rows:
        """version, select, extract; store: another one than the lab's own."""
        workspace = Workspace(self.root, self.root / (store or self.store), self.root / "cache")
        done: dict[str, dict[str, Any]] = {}
        for step in (version, select, extract):
            done[step.__name__] = step(self.config(), self.registry, workspace)
        receipt = json.loads(workspace.receipt.read_text())
        space = Space(receipt["backbone"]["fingerprint"], receipt["backbone"]["cut"], receipt["precision"])
        manifest = Manifest.load(workspace.manifest, workspace.root)
        computed = {
            "backbone": done["select"]["computed"] + done["extract"]["backbone"]["computed"],
            "random": done["extract"]["random"]["computed"],
        }
        return Rows(computed, space, self.read(space, manifest.digests(manifest.rows()), workspace.store))

    def read(self, space: Space, digests: list[str], store: Path | None = None) -> dict[str, np.ndarray]:
        """Rows by digest, as they lie in the store."""
        rows, _ = FeatureStore(store or self.root / self.store).read(space, digests)
        return dict(zip(digests, rows, strict=True))


def text_lab(root: Path, registry: Registry) -> Lab:
    """Class folders of short texts, and a sentence encoder of two tiny blocks."""
    for name, text in texts():
        path = root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write_encoder(root / "weights")
    return Lab(root, registry)


def image_lab(root: Path, registry: Registry) -> Lab:
    """Class folders of small pictures, and a tiny network of timm's."""
    import timm
    from PIL import Image
    from safetensors.torch import save_file

    random = np.random.default_rng(0)
    for label in CLASSES:
        (root / "data" / label).mkdir(parents=True)
        for i in range(PER_CLASS):
            pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "data" / label / f"{i}.png")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("test_resnet", pretrained=False, num_classes=3)
    (root / "weights").mkdir()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, root / "weights" / "model.safetensors")
    picture = {"input_size": [3, 64, 64], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop_pct": 0.9}
    config = {"architecture": "test_resnet", "num_classes": 3, "pretrained_cfg": {**picture, "num_classes": 3}}
    (root / "weights" / "config.json").write_text(json.dumps(config))
    return Lab(root, registry)


def texts() -> Iterator[tuple[str, str]]:
    """(file, text), no two of them alike and of many lengths."""
    random = np.random.default_rng(0)
    for label in CLASSES:
        for i in range(PER_CLASS):
            yield f"{label}/{i}.txt", " ".join([label, *random.choice(WORDS[4:], size=2 + 3 * i)])


def write_encoder(folder: Path) -> None:
    """A sentence-transformers folder: BERT of two blocks, a word-level tokenizer, mean pooling, 24 tokens."""
    import transformers
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    (folder / "1_Pooling").mkdir(parents=True)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=48,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.BertModel(config, add_pooling_layer=False)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    kinds = {"Transformer": "", "Pooling": "1_Pooling"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds.items()]
    facts = {
        "config.json": config.to_dict(),
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": 24},
        "1_Pooling/config.json": {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True},
    }
    for name, value in facts.items():
        (folder / name).write_text(json.dumps(value))
