"""What names a text backbone in the feature store: every ingredient counts, and where its folder lies does not."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tl_text
import torch
from safetensors.torch import load_file, save_file
from tl_text.loader import TextLoader

from tl_core import BackboneSpec
from tl_core.types import FORMAT_VERSION

from .conftest import write_modules

MakeFolder = Callable[..., Path]


@pytest.fixture
def folder(make_folder: MakeFolder) -> Path:
    """A sentence-transformers folder with pooling, length, prompts and a dense layer."""
    folder = make_folder("bert")
    write_modules(folder, {"pooling_mode": "mean"}, "Dense", "Normalize")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32, "do_lower_case": False}))
    prompts = {"prompts": {"query": "where "}, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    dense = {"in_features": 16, "out_features": 5, "bias": True}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(dense))
    tensors = {"linear.weight": torch.ones(5, 16), "linear.bias": torch.ones(5)}
    save_file(tensors, folder / "2_Dense" / "model.safetensors")
    return folder


def fingerprint(folder: Path, **options: Any) -> str:
    (spec,) = tl_text.tl_resolve_backbone(name=str(folder), modality="text")
    return replace(spec, options={**spec.options, **options}).build().fingerprint


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def one_weight(path: Path) -> None:
    tensors = load_file(path)
    name = sorted(tensors)[-1]
    tensors[name].flatten()[-1] += 1e-3
    save_file(tensors, path)


def tokenizer(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


CHANGES: dict[str, Callable[[Path], object]] = {
    "weights": lambda f: one_weight(f / "model.safetensors"),
    "dense weights": lambda f: one_weight(f / "2_Dense" / "model.safetensors"),
    "dense activation": lambda f: edit(
        f / "2_Dense" / "config.json", activation_function="torch.nn.modules.activation.GELU"
    ),
    "no normalising": lambda f: (f / "modules.json").write_text(
        json.dumps(json.loads((f / "modules.json").read_text())[:-1])
    ),
    "pooling": lambda f: edit(f / "1_Pooling" / "config.json", pooling_mode="cls"),
    "prompt pooled": lambda f: edit(f / "1_Pooling" / "config.json", include_prompt=False),
    "window length": lambda f: edit(f / "sentence_bert_config.json", max_seq_length=31),
    "lowercase": lambda f: edit(f / "sentence_bert_config.json", do_lower_case=True),
    "prompt": lambda f: edit(f / "config_sentence_transformers.json", default_prompt_name="query"),
    "normalizer of the tokenizer": lambda f: tokenizer(f / "tokenizer.json", "NFC", "NFKC"),
    "vocabulary": lambda f: tokenizer(f / "tokenizer.json", '"refund"', '"refunds"'),
    "architecture": lambda f: edit(f / "config.json", hidden_act="relu"),
    "epsilon": lambda f: edit(f / "config.json", layer_norm_eps=1e-6),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_another_backbone(change: str, folder: Path) -> None:
    before = fingerprint(folder)
    CHANGES[change](folder)
    assert fingerprint(folder) != before


@pytest.mark.parametrize("options", [{"layers": 1}, {"prompt": "where "}], ids=str)
def test_an_option_makes_another_backbone(options: dict[str, Any], folder: Path) -> None:
    assert fingerprint(folder, **options) != fingerprint(folder)


def test_a_version_makes_another_backbone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {fingerprint(folder)}
    real = importlib.metadata.version
    with monkeypatch.context() as patch:
        patch.setattr("tl_core.types.FORMAT_VERSION", FORMAT_VERSION + 1)
        found.add(fingerprint(folder))
    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "version", lambda name: "0.1" if name == "tokenizers" else real(name))
        found.add(fingerprint(folder))
    with monkeypatch.context() as patch:
        patch.setattr(TextLoader, "version", TextLoader.version + 1)
        found.add(fingerprint(folder))
    assert len(found) == 4
    assert fingerprint(folder) in found


def test_all_together_are_told_apart(folder: Path, tmp_path: Path) -> None:
    found = {fingerprint(folder)}
    for i, change in enumerate(CHANGES.values()):
        other = shutil.copytree(folder, tmp_path / f"changed{i}")
        change(other)
        found.add(fingerprint(other))
    assert len(found) == len(CHANGES) + 1


def test_the_place_and_time_of_a_folder_do_not_count(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(folder)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    assert fingerprint(folder) == before
    copied = shutil.copytree(folder, tmp_path / "elsewhere" / "copied")
    assert fingerprint(copied) == before
    renamed = folder.rename(tmp_path / "renamed")
    assert fingerprint(renamed) == before
    monkeypatch.chdir(tmp_path)
    assert fingerprint(Path("renamed")) == before


def test_what_the_network_does_not_read_does_not_count(folder: Path) -> None:
    before = fingerprint(folder)
    edit(folder / "config.json", transformers_version="0", _name_or_path="me/mine", provenance={"licence": "MIT"})
    (folder / "README.md").write_text("a model card")
    assert fingerprint(folder) == before


def test_the_name_of_a_spec_does_not_count(folder: Path) -> None:
    (spec,) = tl_text.tl_resolve_backbone(name=str(folder), modality="text")
    named: BackboneSpec = replace(spec, name="mine", licence="MIT", params=3)
    assert named.build().fingerprint == spec.build().fingerprint
