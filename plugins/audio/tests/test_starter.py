"""The starter inside the package: it builds offline, is what its card says, and its weights carry something."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import tl_audio
import torch
from tl_audio.catalogue import catalogue, resolve
from tl_audio.loader import Clip

from tl_core import UserError

FOLDER = Path(tl_audio.__file__).parent / "starter"


@pytest.fixture(name="spec", scope="module")
def spec_fixture():
    (spec,) = [spec for spec in catalogue() if spec.name == "starter-audio"]
    return spec


def test_facts(spec):
    weights = FOLDER / "model.safetensors"
    assert weights.stat().st_size <= 5_000_000
    record = json.loads((Path(__file__).parents[3] / "samples/pretrain/audio.json").read_text(encoding="utf-8"))
    assert spec.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest() == record["sha256"]
    assert record["curve"][-1]["hits"] > 5 / record["settings"]["patches"]
    assert (spec.source, spec.presets, spec.licence) == ("package", (), "Apache-2.0")
    backbone = spec.build()
    assert spec.params == sum(p.numel() for p in backbone.parameters())
    assert spec.feature_dim == backbone.feature_dim
    assert backbone.segment_names == ("stem", "layer1", "layer2", "layer3", "layer4", "pool")


def test_loudness_moves_features_less_than_another_sound_does(spec, sound):
    backbone = spec.build()

    def feature(samples):
        windows = backbone.prepare(Clip(samples, 16_000)).windows
        with torch.inference_mode():
            return backbone(backbone.collate(windows))["x"].mean(dim=0)

    low, high = sound(1.0, pitch=200.0), sound(1.0, pitch=1500.0)
    assert torch.dist(feature(low), feature(low * 0.3)) < torch.dist(feature(low), feature(high))


def test_random_twin_has_other_features(spec, sound):
    pretrained, twin = spec.build(), spec.build(0)
    assert pretrained.fingerprint != twin.fingerprint
    state = pretrained.collate(pretrained.prepare(Clip(sound(), 16_000)).windows)
    with torch.inference_mode():
        assert not torch.allclose(pretrained(state)["x"], twin(state)["x"], atol=0.1)


def test_folder_and_name_mean_the_same_network(spec):
    (by_folder,) = resolve(str(FOLDER))
    assert by_folder.build().fingerprint == spec.build().fingerprint


def test_other_weights_are_refused(spec, monkeypatch):
    monkeypatch.setattr("tl_audio.backbones.weights_digest", lambda files: "0" * 64)
    with pytest.raises(UserError, match=r"starter-audio are not the expected ones.*; reinstall the package"):
        spec.build()


def test_card():
    card = " ".join((FOLDER / "README.md").read_text(encoding="utf-8").split())
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    for fact in ("trials and tests", "not for production", "synthesised", "Apache-2.0", "python -m samples.pretrain"):
        assert fact in card, fact
    assert config["provenance"]["pretrained_on"] in card
    assert "<!-- scores -->" in card
    assert "<!-- /scores -->" in card
