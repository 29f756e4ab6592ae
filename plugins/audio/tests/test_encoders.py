"""Each family's chain is the library's own network, whole and in every span."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tl_audio.catalogue import resolve
from tl_audio.loader import Clip

from tl_core import UserError

from .conftest import FAMILIES


def build(folder, random_seed=None):
    (spec,) = resolve(str(folder))
    return spec.build(random_seed)


def library_embedding(family, model, window):
    """What the library's own forward gives for one window, pooled by the stated rule."""
    with torch.inference_mode():
        x = window["x"].unsqueeze(0)
        if family == "whisper":
            x = model.encoder(x).last_hidden_state
        elif family == "ast":
            return model(x).pooler_output[0]
        else:
            x = model(x).last_hidden_state
        return x[0, : window["frames"]].mean(0)


@pytest.mark.parametrize("family", FAMILIES)
def test_chain_equals_the_library(encoder_folder, tiny_encoder, sound, family):
    backbone = build(encoder_folder(family))
    assert backbone.segment_names == ({"whisper": "stem", "ast": "embeddings"}.get(family, "features"),
                                      "layer_0", "layer_1", "pool")  # fmt: skip
    windows = backbone.prepare(Clip(sound(0.6, 22_050), 22_050)).windows
    state = backbone.collate(windows)
    with torch.inference_mode():
        whole = backbone(state)["x"]
        assert whole.shape == (len(windows), backbone.feature_dim)
        torch.testing.assert_close(whole[0], library_embedding(family, tiny_encoder(family), windows[0]))
        for cut in range(1, len(backbone.segment_names)):
            boundary = backbone(state, stop=cut)
            assert boundary["x"].shape[0] == len(windows)
            torch.testing.assert_close(backbone(boundary, start=cut)["x"], whole, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_on_top_are_left_out(encoder_folder, tiny_encoder, sound, family):
    backbone = build(encoder_folder(family, head=True))
    window = backbone.prepare(Clip(sound(0.6), 16_000)).windows[0]
    model = tiny_encoder(family, head=True)
    with torch.inference_mode():
        ours = backbone(backbone.collate([window]))["x"][0]
    inner = model.model if family == "whisper" else getattr(model, model.base_model_prefix)
    torch.testing.assert_close(ours, library_embedding(family, inner, window))


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm", "whisper", "ast"])
def test_a_row_does_not_depend_on_its_company(encoder_folder, sound, family):
    backbone = build(encoder_folder(family))
    clips = [backbone.prepare(Clip(sound(0.5 + i / 1000, seed=i), 16_000)).windows[0] for i in range(4)]
    size = 4
    with torch.inference_mode():
        alone = backbone(backbone.collate([clips[0]] * size))["x"][0]
        among = backbone(backbone.collate(clips))["x"][0]
    assert torch.equal(alone, among)


def test_long_clips_give_several_windows(encoder_folder, sound):
    prepared = build(encoder_folder("wav2vec2")).prepare(Clip(sound(21.0, 8000), 8000))
    assert [tuple(window["x"].shape) for window in prepared.windows] == [(160_000,)] * 3
    assert not prepared.truncated


def test_old_weight_norm_names(encoder_folder, sound):
    folder = encoder_folder("wav2vec2")
    clip = Clip(sound(0.5), 16_000)
    backbone = build(folder)
    tensors = load_file(folder / "model.safetensors")
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, old in names.items():
        (key,) = (key for key in tensors if key.endswith(new))
        tensors[key.replace(new, old)] = tensors.pop(key)
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    again = build(folder)
    with torch.inference_mode():
        a, b = (net(net.collate(net.prepare(clip).windows))["x"] for net in (backbone, again))
    assert torch.equal(a, b)
    assert again.fingerprint != backbone.fingerprint  # other bytes


def test_ast_files_in_the_modules_own_names_load_too(encoder_folder, tiny_encoder):
    folder = encoder_folder("ast")
    save_file(tiny_encoder("ast").state_dict(), folder / "model.safetensors")
    assert build(folder).feature_dim == 32


def test_random_twin_needs_no_weights(encoder_folder, sound):
    folder = encoder_folder("hubert")
    real = build(folder)
    (folder / "model.safetensors").unlink()
    before = torch.random.get_rng_state()
    one, same, other = (build(folder, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.identity.weights.startswith("random-")
    assert one.fingerprint == same.fingerprint
    assert len({real.fingerprint, one.fingerprint, other.fingerprint}) == 3
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    with pytest.raises(UserError, match="no weights in"):
        build(folder)


def test_identity_tells_all_that_counts(encoder_folder):
    facts = build(encoder_folder("wav2vec2")).identity
    assert {"loader", "decoder", "channels", "resampler", "rate", "normalise", "window", "padding", "pooling"} == set(
        facts.preprocessing
    )
    assert facts.preprocessing["resampler"].startswith("soxr ")
    json.dumps(dict(facts.preprocessing))


def test_two_sizes_with_one_random_seed_differ(encoder_folder):
    folder = encoder_folder("wav2vec2")
    small = build(folder, 0).fingerprint
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    assert build(folder, 0).fingerprint != small


def test_faults_are_the_users_to_mend(encoder_folder, tmp_path):
    folder = encoder_folder("wav2vec2")
    (spec,) = resolve(str(folder))

    def fault(**changes):
        with pytest.raises(UserError) as caught:
            dataclasses.replace(spec, **changes).build()
        return str(caught.value)

    assert "are not the expected ones: sha256" in fault(sha256="0" * 64)
    config = json.loads((folder / "config.json").read_text())

    def variant(name, values):
        other = shutil.copytree(folder, tmp_path / name, dirs_exist_ok=True)
        (other / "config.json").write_text(json.dumps({**config, **values}))
        return str(other)

    assert "of another architecture: missing encoder.layers.2" in fault(
        location=variant("deep", {"num_hidden_layers": 3})
    )
    assert "add_adapter" in fault(location=variant("adapter", {"add_adapter": True}))
    bare = variant("bare", {})
    (Path(bare) / "preprocessor_config.json").unlink()
    assert "no usable preprocessor_config.json" in fault(location=bare)
    torn = variant("torn", {})
    (Path(torn) / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:500])
    assert "unreadable weights" in fault(location=torn)


def test_gradients_reach_every_segment(encoder_folder, sound):
    backbone = build(encoder_folder("wavlm")).requires_grad_(True).train()
    window = backbone.prepare(Clip(sound(0.5), 16_000)).windows[0]
    backbone(backbone.collate([window, window]))["x"].sum().backward()
    grown = {name.split(".")[0] for name, p in backbone.segments.named_parameters() if p.grad is not None}
    assert grown == {"features", "layer_0", "layer_1"}
    assert np.isfinite(sum(float(p.grad.sum()) for p in backbone.parameters() if p.grad is not None))


def test_wavlm_bias_table_has_one_owner(encoder_folder, sound):
    backbone = build(encoder_folder("wavlm"))
    assert [key for key in backbone.state_dict() if "rel_attn_embed" in key] == [
        "segments.layer_0.layer.attention.rel_attn_embed.weight"
    ]
    twin = copy.deepcopy(backbone)
    state = backbone.collate(backbone.prepare(Clip(sound(0.5), 16_000)).windows)
    with torch.inference_mode():
        before = twin(state)["x"]
        backbone.segments["layer_0"].layer.attention.rel_attn_embed.weight.add_(3.0 * torch.randn(320, 2))
        assert torch.equal(twin(state)["x"], before)
        assert not torch.equal(backbone(backbone(state, stop=2), start=2)["x"], before)
