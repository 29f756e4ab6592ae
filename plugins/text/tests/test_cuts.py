"""From every cut, row by row and padded anew: the same embedding as in one go."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tl_text
import torch

from tl_core import Backbone, State

from .conftest import FAMILIES, write_modules

MakeFolder = Callable[..., Path]
TEXTS = ["my card is not working", "refund", "please cancel my order now the app is slow", "where is it ?"]


def build(folder: Path) -> Backbone:
    (spec,) = tl_text.tl_resolve_backbone(name=str(folder), modality="text")
    return spec.build()


def from_rows(backbone: Backbone, cut: int, rows: list[State]) -> torch.Tensor:
    """Embeddings [N, D] of boundary rows, each bucket in a batch of its own."""
    buckets: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        buckets.setdefault(backbone.boundary_bucket(row), []).append(i)
    found: dict[int, torch.Tensor] = {}
    for members in buckets.values():
        state = backbone.collate_boundary([rows[i] for i in members])
        found.update(zip(members, backbone(state, start=cut)["x"], strict=True))
    return torch.stack([found[i] for i in range(len(rows))])


def whole_and_rows(backbone: Backbone, cut: int) -> tuple[torch.Tensor, list[State]]:
    """Embeddings of TEXTS in one go, and their rows at a cut, each computed in its own bucket with company."""
    whole, rows = [], []
    for text in TEXTS:
        window = backbone.prepare(text).windows[0]
        batch = backbone.collate([window] * 4)
        whole.append(backbone(dict(batch))["x"][0])
        rows += backbone.boundary_rows(backbone(dict(batch), stop=cut), [window])  # the batch holds three more
    return torch.stack(whole), rows


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_goes_on_from_its_rows(family: str, make_folder: MakeFolder) -> None:
    backbone = build(make_folder(family))
    assert backbone.ragged
    lengths = [len(backbone.prepare(text).windows[0]["x"]) for text in TEXTS]
    with torch.inference_mode():
        for cut in range(1, len(backbone.segments)):
            whole, rows = whole_and_rows(backbone, cut)
            assert [row.keys() for row in rows] == [{"x"}] * len(TEXTS)  # the mask is made again
            assert [row["x"].shape for row in rows] == [(length, 16) for length in lengths]
            torch.testing.assert_close(from_rows(backbone, cut, rows), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
@pytest.mark.parametrize("skip", [False, True], ids=["", "prompt not pooled"])
def test_every_pooling_goes_on_from_its_rows(mode: str, skip: bool, make_folder: MakeFolder) -> None:
    folder = make_folder("mpnet")
    pooling: dict[str, Any] = {"pooling_mode": mode, "include_prompt": not skip}
    write_modules(folder, pooling, "Normalize")
    prompts = {"prompts": {"query": "the app "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    backbone = build(folder)
    with torch.inference_mode():
        for cut in range(1, len(backbone.segments)):
            whole, rows = whole_and_rows(backbone, cut)
            torch.testing.assert_close(from_rows(backbone, cut, rows), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_padding_never_leaks(family: str, make_folder: MakeFolder) -> None:
    backbone = build(make_folder(family))
    with torch.inference_mode():
        for cut in range(1, len(backbone.segments)):
            _, rows = whole_and_rows(backbone, cut)
            state = backbone.collate_boundary(rows[:1])
            hidden = state["mask"][0] == 0
            assert hidden.any()
            expected = backbone(dict(state), start=cut)["x"]
            state["x"][0, hidden] = 1000.0 * torch.randn(int(hidden.sum()), 16)
            assert torch.equal(backbone(state, start=cut)["x"], expected)


def test_rows_keep_their_type_and_bucket(make_folder: MakeFolder) -> None:
    backbone = build(make_folder("bert"))
    rows = [{"x": torch.ones(length, 16, dtype=torch.float16)} for length in (3, 8, 9)]
    assert [backbone.boundary_bucket(row) for row in rows] == [8, 8, 16]
    state = backbone.collate_boundary(rows[:2])
    assert (state["x"].dtype, state["x"].shape) == (torch.float16, (2, 8, 16))
    assert state["mask"].tolist() == [[1] * 3 + [0] * 5, [1] * 8]
