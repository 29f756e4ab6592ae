"""On real data and real weights: hiding what an explanation points at costs more than hiding anything else."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tl_core.explain import embed_windows, find_heats
from tl_core.extraction import embed
from tl_core.heads import linear_heads
from tl_core.registry import load_registry
from tl_core.training import fit_probe
from tl_core.types import Backbone, Targets

HIDDEN = 0.2  # of the places of a sample
ROWS = 12

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def probed(backbone: Backbone, decoded: Sequence[Any], names: Sequence[str]) -> Any:
    """A head on the backbone's embeddings."""
    classes = tuple(sorted(set(names)))
    targets = Targets("multiclass", classes)
    spec = next(h for h in linear_heads("any") if h.task == "multiclass")
    x = embed(backbone, [backbone.prepare(one) for one in decoded], torch.device("cpu"), "float32")
    y = torch.tensor([classes.index(name) for name in names])
    head = spec.build(backbone.feature_dim, targets)
    return fit_probe(x[::2], y[::2], x[1::2], y[1::2], head, spec, targets, (30.0, 3.0, 0.3), True).head.eval()


def said(head: Any, index: int) -> Any:
    """The log-odds of a class."""

    def odds(embeddings: torch.Tensor) -> torch.Tensor:
        logits = head(embeddings)
        return logits[:, index] - torch.cat([logits[:, :index], logits[:, index + 1 :]], dim=1).logsumexp(dim=1)

    return odds


def test_the_places_of_photos(shared_data: Path) -> None:
    registry = load_registry()
    loader = registry.loader("image")
    backbone = registry.backbone(str(shared_data / "weights" / "mobilenet_v1_025_224_imagenet"), "image").build()
    rng = np.random.default_rng(0)
    files = sorted((shared_data / "datasets" / "caltech20" / "train").rglob("*.jpg"))
    files = [files[i] for i in rng.permutation(len(files))[: 140 + ROWS]]
    pictures = [loader.decode_for(file, backbone.need) for file in files]
    head = probed(backbone, pictures[ROWS:], [file.parent.name for file in files[ROWS:]])
    hidden, random = [], []
    for picture in pictures[:ROWS]:
        windows = backbone.prepare(picture).windows
        rows = embed_windows(backbone, windows)
        index = int(head(rows).argmax())
        (heat,) = find_heats(backbone, windows, rows, said(head, index)).values
        places = [heat.ravel().argsort()[::-1], rng.permutation(heat.size)]
        x = windows[0]["x"]
        mean = x.float().mean(dim=(1, 2), keepdim=True).to(torch.uint8).expand_as(x)
        batch = [x]
        for order in places:
            chosen = np.zeros(heat.size, np.float32)
            chosen[order[: int(HIDDEN * heat.size)]] = 1
            mask = torch.from_numpy(chosen.reshape(1, 1, *heat.shape))
            batch.append(torch.where(torch.nn.functional.interpolate(mask, x.shape[1:])[0] > 0, mean, x))
        with torch.no_grad():
            left = head.decode(head(backbone({"x": torch.stack(batch)})["x"]))[:, index]
        hidden.append(float(left[0] - left[1]))
        random.append(float(left[0] - left[2]))
    print(f"photos: hiding the most salient costs {np.mean(hidden):.3f}, hiding any {np.mean(random):.3f}")
    assert np.mean(hidden) > np.mean(random) + 0.03


def test_the_words_of_sentences(shared_data: Path) -> None:
    registry = load_registry()
    backbone = registry.backbone(str(shared_data / "weights" / "minilm_l6_vocab15k"), "text").build()
    rng = np.random.default_rng(0)
    with (shared_data / "datasets" / "sst2_mini" / "train.csv").open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    table = [table[i] for i in rng.permutation(len(table))]
    table = [row for row in table if len(row["text"].split()) in range(8, 16)][: 200 + ROWS]
    head = probed(backbone, [row["text"] for row in table[ROWS:]], [row["label"] for row in table[ROWS:]])
    texts, classes = [], []
    for row in table[:ROWS]:
        text = row["text"]
        windows = backbone.prepare(text).windows
        rows = embed_windows(backbone, windows)
        classes.append(int(head(rows).argmax()))
        (heat,) = find_heats(backbone, windows, rows, said(head, classes[-1])).values
        spans = backbone.places(text)
        assert spans is not None
        words = text.split(" ")
        ends = np.cumsum([len(word) + 1 for word in words])
        value = np.zeros(len(words))
        for (start, stop), added in zip(spans[0], heat[0], strict=True):
            if stop > start:
                value[np.searchsorted(ends, start, side="right")] += added
        count = max(1, round(HIDDEN * len(words)))
        for gone in ([], value.argsort()[::-1][:count], rng.permutation(len(words))[:count]):
            texts.append(" ".join(word for i, word in enumerate(words) if i not in set(gone)))
    x = embed(backbone, [backbone.prepare(text) for text in texts], torch.device("cpu"), "float32")
    with torch.no_grad():
        left = head.decode(head(x))[torch.arange(len(x)), torch.tensor(classes).repeat_interleave(3)].reshape(-1, 3)
    hidden, random = float((left[:, 0] - left[:, 1]).mean()), float((left[:, 0] - left[:, 2]).mean())
    print(f"sentences: leaving out the most salient costs {hidden:.3f}, leaving out any {random:.3f}")
    assert hidden > random + 0.1
