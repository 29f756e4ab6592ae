"""Which names mean what, and that the catalogue's facts are facts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from tl_audio.catalogue import catalogue, resolve

from tl_core import UserError


def test_importing_takes_milliseconds_of_our_own():
    code = (
        "import sys, tl_core, pluggy; before = set(sys.modules); import tl_audio; print(len(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10


def test_names(encoder_folder, tmp_path):
    folder = encoder_folder("wav2vec2")
    (by_folder,) = resolve(str(folder))
    assert (by_folder.source, by_folder.location) == ("folder", str(folder))
    (by_file,) = resolve(str(folder / "model.safetensors"))
    assert by_file.build().fingerprint == by_folder.build().fingerprint
    (hub,) = resolve("facebook/wav2vec2-base")
    assert (hub.source, hub.name, hub.licence) == ("hub", "facebook/wav2vec2-base", "Apache-2.0")
    assert resolve("someone/some-model")[0].params is None
    assert resolve("HUBERT_LARGE")[0].options == {"bundle": "HUBERT_LARGE"}
    other = tmp_path / "other"
    other.mkdir()
    assert resolve(str(other)) == []
    for config in ({"model_type": "bert"}, {"framework": "timm", "architecture": "resnet18"}, {}):
        (other / "config.json").write_text(json.dumps(config))
        assert resolve(str(other)) == []
    for name in ("resnet18", "NO_SUCH_BUNDLE", "vit@file.pth", "./nowhere/at/all"):
        assert resolve(name) == []


def test_hub_without_network_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="can't download nobody/no-such-model from the hub: HF_HUB_OFFLINE is set"):
        resolve("nobody/no-such-model")[0].build()


def test_hub_folders_are_read_like_local_ones(encoder_folder, monkeypatch):
    folder = encoder_folder("wav2vec2")
    asked = []

    def hub_folder(repo, revision=None, *, allow=()):
        asked.append(tuple(allow))
        return folder, "c0ffee"

    monkeypatch.setattr("tl_audio.encoders.hub_folder", hub_folder)
    backbone = resolve("someone/tiny")[0].build()
    assert backbone.identity.revision == "c0ffee"
    assert backbone.fingerprint == resolve(str(folder))[0].build().fingerprint
    resolve("someone/tiny")[0].build(0)
    assert asked == [("*.json", "model*.safetensors"), ("*.json",)]


def test_facts():
    import transformers as t
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    norms = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}

    def whisper(width, layers):
        return WhisperEncoder(
            t.WhisperConfig(
                d_model=width, encoder_layers=layers, encoder_ffn_dim=4 * width, encoder_attention_heads=width // 64
            )
        )

    networks = {  # the published sizes
        "ast-audioset": lambda: t.ASTModel(t.ASTConfig()),
        "wav2vec2-base": lambda: t.Wav2Vec2Model(t.Wav2Vec2Config()),
        "wav2vec2-large-xlsr-53": lambda: t.Wav2Vec2Model(t.Wav2Vec2Config(**large, **norms)),
        "hubert-base": lambda: t.HubertModel(t.HubertConfig()),
        "wavlm-base-plus": lambda: t.WavLMModel(t.WavLMConfig()),
        "data2vec-audio-base": lambda: t.Data2VecAudioModel(t.Data2VecAudioConfig()),
        "whisper-tiny": lambda: whisper(384, 4),
        "whisper-base": lambda: whisper(512, 6),
        "whisper-small": lambda: whisper(768, 12),
    }
    specs = {spec.name: spec for spec in catalogue()}
    for name, build in networks.items():
        with torch.device("meta"):
            network = build()
        assert specs[name].params == sum(p.numel() for p in network.parameters()), name
        assert specs[name].feature_dim == network.config.hidden_size, name
    assert len(specs) == len(catalogue())
    assert any(spec.default for spec in specs.values())
