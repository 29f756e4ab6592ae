"""Views of every family: the state after a layer, as the mean over the text's own tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tl_text
import torch

from tl_core.testing import assert_engines_agree, assert_views
from tl_core.views import at_view

from .conftest import FAMILIES, write_modules

MakeFolder = Callable[..., Path]
TEXTS = ["my card is not working", "refund", "the app is slow", "where is it"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, make_folder: MakeFolder) -> None:
    [spec] = tl_text.tl_resolve_backbone(name=str(make_folder(family)), modality="text")
    built = spec.build()
    found = assert_views(spec, [built.prepare(text).windows[0] for text in TEXTS])
    if len(built.segments) == 2:  # one segment and the mean over it
        assert found == []
    else:  # the mean over the last layer is the embedding itself
        assert found == ["embeddings", "layer_0", "mean"]


def test_the_last_layer_counts_where_the_network_takes_another_token(make_folder: MakeFolder) -> None:
    folder = make_folder("bert")
    write_modules(folder, {"pooling_mode": "cls"}, "Normalize")
    [spec] = tl_text.tl_resolve_backbone(name=str(folder), modality="text")
    built = spec.build()
    found = assert_views(spec, [built.prepare(text).windows[0] for text in TEXTS])
    assert found == ["embeddings", "layer_0", "layer_1", "mean"]


def test_a_prompt_that_is_not_pooled_stays_out(make_folder: MakeFolder) -> None:
    folder = make_folder("mpnet")
    write_modules(folder, {"pooling_mode": "mean", "include_prompt": False})
    prompts = {"prompts": {"query": "the app "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    [spec] = tl_text.tl_resolve_backbone(name=str(folder), modality="text")
    built = spec.build()
    state = {"x": torch.rand(1, 6, 16), "mask": torch.tensor([[1, 1, 1, 1, 1, 0]])}
    torch.testing.assert_close(built.pooled(state), state["x"][:, 3:5].mean(dim=1))  # [CLS] the app
    assert_views(spec, [built.prepare(text).windows[0] for text in TEXTS])


@pytest.mark.parametrize("view", ["layer_0", "mean"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop", [None, 2])
def test_engines_agree(view: str, precision: str, stop: int | None, make_folder: MakeFolder) -> None:
    [spec] = tl_text.tl_resolve_backbone(name=str(make_folder("bert")), modality="text")
    built = at_view(spec, view).build()
    windows = [built.prepare(text).windows[0] for text in TEXTS]
    assert "openvino" in ",".join(assert_engines_agree(built, windows, precision, stop))
