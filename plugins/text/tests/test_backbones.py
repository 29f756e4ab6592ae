"""Encoders equal the library's own forward, whole and in spans; folders, sources and faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tl_text
import torch
from safetensors.torch import load_file, save_file
from tl_text.tokens import load_tokenizer

from tl_core import Backbone, BackboneSpec, UserError

from .conftest import FAMILIES, write_modules, write_tokenizer

MakeFolder = Callable[..., Path]
TEXTS = ["my card is not working", "refund", "please cancel my order now the app is slow", "where is it ?"]


def resolve(name: str | Path) -> BackboneSpec:
    (spec,) = tl_text.tl_resolve_backbone(name=str(name), modality="text")
    return spec


def embed(backbone: Backbone, texts: list[str]) -> torch.Tensor:
    """Embeddings [N, D], each text in a batch of its own bucket."""
    rows = []
    with torch.inference_mode():
        for text in texts:
            (window,) = backbone.prepare(text).windows
            rows.append(backbone(backbone.collate([window, window]))["x"][0])
    return torch.stack(rows)


def batch_of(backbone: Backbone, texts: list[str]) -> dict[str, torch.Tensor]:
    windows = [backbone.prepare(text).windows[0] for text in texts]
    widest = max(windows, key=backbone.bucket)
    return {k: v[:-1] for k, v in backbone.collate([*windows, widest]).items()}


def library_states(folder: Path, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """last_hidden_state [B, T, D] of transformers' own model and loading."""
    import transformers

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = transformers.AutoModelForTextEncoding if config["model_type"] == "t5" else transformers.AutoModel
    model = kind.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(input_ids=batch["x"], attention_mask=batch["mask"]).last_hidden_state  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_library_whole_and_in_spans(family: str, make_folder: MakeFolder) -> None:
    folder = make_folder(family)
    backbone = resolve(folder).build()
    batch = batch_of(backbone, TEXTS)
    mask = batch["mask"].unsqueeze(-1)
    assert 0 in mask
    expected = (library_states(folder, batch) * mask).sum(1) / mask.sum(1)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(dict(batch))["x"], expected, rtol=1e-5, atol=1e-5)
        for cut in range(1, len(backbone.segment_names)):
            boundary = backbone(dict(batch), stop=cut)
            assert boundary.keys() == {"x", "mask"}
            torch.testing.assert_close(backbone(boundary, start=cut)["x"], expected, rtol=1e-5, atol=1e-5)
    whole = family in ("albert", "deberta-v2", "modernbert", "t5")
    assert backbone.segment_names == (*(("network",) if whole else ("embeddings", "layer_0", "layer_1")), "pool")


@pytest.mark.parametrize("family", ["bert", "mpnet", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_company_never_changes_a_bit(family: str, bfloat16: bool, make_folder: MakeFolder) -> None:
    backbone = resolve(make_folder(family)).build()
    texts = ("my card", "please cancel my order now", "the app is slow")
    windows = [backbone.prepare(text).windows[0] for text in texts]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        alone = backbone(backbone.collate([windows[0]] * 8))["x"]
        among = backbone(backbone.collate([windows[0], *[windows[1]] * 6, windows[2]]))["x"]
    assert alone.dtype == torch.float32
    assert torch.equal(alone[0], among[0])


POOLINGS: list[tuple[dict[str, Any], Callable[[torch.Tensor], torch.Tensor]]] = [
    ({"pooling_mode": "cls"}, lambda x: x[0]),
    ({"pooling_mode_max_tokens": True}, lambda x: x.amax(0)),
    ({"pooling_mode": "mean"}, lambda x: x.mean(0)),
    ({"pooling_mode_mean_sqrt_len_tokens": True}, lambda x: x.sum(0) / len(x) ** 0.5),
    ({"pooling_mode": "lasttoken"}, lambda x: x[-1]),
    (
        {"pooling_mode_weightedmean_tokens": True},
        lambda x: (x * torch.arange(1.0, len(x) + 1)[:, None]).sum(0) / sum(range(1, len(x) + 1)),
    ),
    ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, lambda x: torch.cat([x[0], x.mean(0)])),
]


@pytest.mark.parametrize(("pooling", "formula"), POOLINGS, ids=[str(list(p)) for p, _ in POOLINGS])
def test_pooling_of_the_folder_is_honoured(pooling: dict[str, Any], formula: Any, make_folder: MakeFolder) -> None:
    folder = make_folder("bert")
    write_modules(folder, pooling, "Normalize")
    backbone = resolve(folder).build()
    batch = batch_of(backbone, TEXTS)
    states = library_states(folder, batch)
    rows = [formula(x[: int(mask.sum())]) for x, mask in zip(states, batch["mask"], strict=True)]
    expected = torch.nn.functional.normalize(torch.stack(rows), dim=-1)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(batch)["x"], expected, rtol=1e-5, atol=1e-5)
    assert backbone.feature_dim == expected.shape[1]


def test_dense_layer_and_its_weights_count(make_folder: MakeFolder) -> None:
    folder = make_folder("bert")
    write_modules(folder, {"pooling_mode": "mean"}, "Dense")
    plain = {"in_features": 16, "out_features": 5, "bias": True}
    config = {**plain, "activation_function": "torch.nn.modules.activation.Tanh"}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {"linear.weight": torch.randn(5, 16), "linear.bias": torch.randn(5)}
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    backbone = resolve(folder).build()
    batch = batch_of(backbone, TEXTS)
    mask = batch["mask"].unsqueeze(-1)
    mean = (library_states(folder, batch) * mask).sum(1) / mask.sum(1)
    with torch.inference_mode():
        expected = torch.tanh(mean @ weights["linear.weight"].T + weights["linear.bias"])
        torch.testing.assert_close(backbone(batch)["x"], expected, rtol=1e-5, atol=1e-5)
    assert backbone.feature_dim == 5
    save_file({**weights, "linear.bias": torch.zeros(5)}, folder / "2_Dense" / "model.safetensors")
    assert resolve(folder).build().fingerprint != backbone.fingerprint
    (folder / "2_Dense" / "config.json").write_text(json.dumps({**plain, "activation_function": "os.system"}))
    with pytest.raises(UserError, match="can't use the dense layer"):
        resolve(folder).build()


def test_prompt_length_and_lowercase_of_the_folder(make_folder: MakeFolder) -> None:
    folder = make_folder("bert")
    bare = resolve(folder).build()
    write_modules(folder, {"pooling_mode": "mean", "include_prompt": False})
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 7, "do_lower_case": True}))
    prompts = {"prompts": {"query": "the app "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    backbone = resolve(folder).build()
    short, long = backbone.prepare("MY Card"), backbone.prepare("my card is not working")
    assert short.windows[0]["x"].tolist() == bare.prepare("the app my card").windows[0]["x"].tolist()
    assert not short.truncated
    assert long.truncated
    assert len(long.windows[0]["x"]) == 7
    states = library_states(folder, backbone.collate(short.windows))[0, : len(short.windows[0]["x"])]
    torch.testing.assert_close(embed(backbone, ["my card"])[0], states[3:].mean(0), rtol=1e-5, atol=1e-5)
    assert backbone.fingerprint != bare.fingerprint


@pytest.mark.parametrize(
    ("family", "task"),
    [("bert", "AutoModelForMaskedLM"), ("distilbert", "AutoModelForSequenceClassification"),
     ("modernbert", "AutoModelForMaskedLM"), ("mpnet", "AutoModelForMaskedLM")],
)  # fmt: skip
def test_checkpoints_with_a_task_head(family: str, task: str, make_folder: MakeFolder) -> None:
    folder = make_folder(family, task=task)
    backbone = resolve(folder).build()
    batch = batch_of(backbone, TEXTS)
    mask = batch["mask"].unsqueeze(-1)
    expected = (library_states(folder, batch) * mask).sum(1) / mask.sum(1)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(batch)["x"], expected, rtol=1e-5, atol=1e-5)


def test_old_spellings_of_layer_norm(make_folder: MakeFolder) -> None:
    folder = make_folder("bert")
    expected = embed(resolve(folder).build(), TEXTS)
    tensors = load_file(folder / "model.safetensors")
    spelt = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
             for k, v in tensors.items()}  # fmt: skip
    spelt["embeddings.position_ids"] = torch.arange(48)[None]
    save_file(spelt, folder / "model.safetensors")
    assert torch.equal(embed(resolve(folder).build(), TEXTS), expected)


def test_first_layers_only(make_folder: MakeFolder) -> None:
    folder = make_folder("bert", num_hidden_layers=3)
    spec = resolve(folder)
    whole = spec.build()
    cut = BackboneSpec("cut", "text", "folder", str(folder), spec.builder, options={"layers": 2}).build()
    assert cut.segment_names == ("embeddings", "layer_0", "layer_1", "pool")
    assert cut.fingerprint != whole.fingerprint
    batch = batch_of(whole, TEXTS)
    with torch.inference_mode():
        middle = whole(dict(batch), stop=3)
        torch.testing.assert_close(cut(dict(batch), stop=3)["x"], middle["x"])
    too_many = BackboneSpec("cut", "text", "folder", str(folder), spec.builder, options={"layers": 9})
    with pytest.raises(UserError, match=r"layers can't be 9 .* allowed are 1 to 3"):
        too_many.build()


def test_buckets_are_few_and_batches_bounded(make_folder: MakeFolder) -> None:
    backbone = resolve(make_folder("bert", max_position_embeddings=500)).build()
    widths = sorted({backbone.bucket({"x": torch.zeros(n, dtype=torch.int64)}) for n in range(1, 501)})
    assert widths[:9] == [8, 16, 24, 32, 40, 48, 56, 64, 80]
    assert len(widths) == 20
    assert widths[-1] == 500  # never past the table of positions
    assert [backbone.batch_size(w) for w in (8, 16, 24, 64, 500)] == [32, 32, 16, 8, 1]
    assert all(backbone.batch_size(w) * w <= 512 for w in widths)


def test_tokenising_together_is_tokenising_one_by_one(make_folder: MakeFolder) -> None:
    folder = make_folder("bert")
    backbone = resolve(folder).build()
    tokenizer, _ = load_tokenizer(folder, max_length=48, lowercase=False)
    texts = [f"my card {'is ' * (i % 60)}" for i in range(200)] + ["", "\u200b", "café now"]
    for text, prepared in zip(texts, backbone.prepare_many(texts), strict=True):
        alone = tokenizer.encode(text)
        assert {key: value.tolist() for key, value in prepared.windows[0].items()} == {"x": alone.ids}
        assert prepared.truncated == bool(alone.overflowing) == (len(text.split()) > 46)
        assert backbone.prepare(text).windows[0]["x"].tolist() == alone.ids
    assert backbone.prepare_many(iter(texts[:2]))[1].windows[0]["x"].tolist() == tokenizer.encode(texts[1]).ids
    assert backbone.prepare_many([]) == []


def test_token_types_of_the_tokenizer_ride_along(make_folder: MakeFolder) -> None:
    folder = make_folder("bert")
    plain = resolve(folder).build()
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["post_processor"]["single"][1]["Sequence"]["type_id"] = 1
    path.write_text(json.dumps(tokenizer))
    backbone = resolve(folder).build()
    windows = [backbone.prepare(text).windows[0] for text in ("my card", "")]
    assert [window["types"].tolist() for window in windows] == [[0, 1, 1, 0], [0, 0]]
    batch = backbone.collate(windows)
    assert batch["types"].tolist() == [[0, 1, 1, 0, 0, 0, 0, 0], [0] * 8]
    with torch.inference_mode():
        ours, other = backbone(batch)["x"], plain(plain.collate([plain.prepare("my card").windows[0]] * 2))["x"]
    assert not torch.allclose(ours[0], other[0])


def test_threads_can_share_the_tokenizer(make_folder: MakeFolder) -> None:
    backbone = resolve(make_folder("bert")).build()
    texts = [[f"my card {'is ' * ((i + k) % 60)}" for k in range(20)] for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(backbone.prepare_many, texts))
    for chunk, prepared in zip(texts, together, strict=True):
        for alone, one in zip(backbone.prepare_many(chunk), prepared, strict=True):
            assert torch.equal(alone.windows[0]["x"], one.windows[0]["x"])
            assert alone.truncated == one.truncated


def test_random_twin_is_named_by_seed(make_folder: MakeFolder) -> None:
    spec = resolve(make_folder("bert"))
    state = torch.random.get_rng_state()
    twin = spec.build(random_seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert twin.identity.weights.startswith("random-")
    assert torch.equal(embed(twin, TEXTS), embed(spec.build(random_seed=3), TEXTS))


def test_weights_file_and_old_pytorch_file(make_folder: MakeFolder) -> None:
    folder = make_folder("bert")
    expected = embed(resolve(folder).build(), TEXTS)
    torch.save(load_file(folder / "model.safetensors"), folder / "other.bin")
    spec = resolve(folder / "other.bin")
    assert spec.source == "file"
    assert torch.equal(embed(spec.build(), TEXTS), expected)


def test_folders_that_are_no_text_encoders(tmp_path: Path, make_folder: MakeFolder) -> None:
    def names(folder: Path, modality: str = "text") -> list[BackboneSpec]:
        return tl_text.tl_resolve_backbone(name=str(folder), modality=modality)

    text = make_folder("bert")
    assert len(names(text)) == 1
    assert names(text, "image") == []
    for i, config in enumerate(({"architecture": "resnet18"}, {"model_type": "vit"}, {"model_type": "wav2vec2"})):
        folder = tmp_path / f"other{i}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "vocab.json").write_text("{}")
        assert names(folder) == []
    assert names(tmp_path) == []
    assert names(tmp_path / "missing") == []
    (text / "tokenizer.json").unlink()
    assert names(text) == []


def test_hub_ids_resolve_without_network() -> None:
    spec = resolve("some-one/some.model_v2")
    assert (spec.source, spec.location, spec.revision) == ("hub", "some-one/some.model_v2", None)
    with pytest.raises(UserError, match="without network give a local folder"):
        spec.build()


def test_faults_are_user_errors(make_folder: MakeFolder) -> None:
    folder = make_folder("bert")
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "embeddings.word_embeddings.weight": torch.zeros(4, 16)}, weights)
    with pytest.raises(UserError, match="another architecture"):
        resolve(folder).build()
    save_file({k: v for k, v in tensors.items() if "layer.1" not in k}, weights)
    with pytest.raises(UserError, match=r"missing encoder\.layer\.1"):
        resolve(folder).build()
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="unreadable weights"):
        resolve(folder).build()
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="no fast tokenizer"):
        resolve(folder).build()
    config = json.loads((folder / "config.json").read_text())
    spec = resolve(folder)
    remote = {**config, "model_type": "home_made", "auto_map": {"AutoModel": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(remote))
    write_tokenizer(folder)
    with pytest.raises(UserError, match="code from a model's folder is never run"):
        spec.build()


def test_unknown_modules_are_refused(make_folder: MakeFolder) -> None:
    folder = make_folder("bert")
    spec = resolve(folder)
    write_modules(folder, {"pooling_mode": "attention"})
    with pytest.raises(UserError, match="unknown pooling attention"):
        spec.build()
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_LSTM", "type": "sentence_transformers.models.LSTM"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match="Transformer, Pooling, LSTM"):
        spec.build()
    modules[2]["path"] = "../elsewhere"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match="outside the model"):
        spec.build()
