"""What names an audio backbone in the feature store: every ingredient counts, and where its folder lies does not."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import soxr
import torch
from safetensors.torch import load_file, save_file
from tl_audio import frontends
from tl_audio.backbones import identity_of
from tl_audio.catalogue import resolve
from tl_audio.loader import AudioLoader

from tl_core.types import FORMAT_VERSION


def build(name):
    (spec,) = resolve(str(name))
    return spec.build()


def fingerprint(name):
    return build(name).fingerprint


def edit(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def one_weight(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors[sorted(tensors)[-1]].flatten()[-1:] += 1e-3
    save_file(tensors, folder / "model.safetensors")


def extractor(**values):
    return lambda folder: edit(folder / "preprocessor_config.json", **values)


def config(**values):
    return lambda folder: edit(folder / "config.json", **values)


def front_end(**values):
    def change(folder):
        numbers = json.loads((folder / "config.json").read_text())["frontend"]
        edit(folder / "config.json", frontend=numbers | values)

    return change


def input_of(**values):
    def change(folder):
        facts = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
        edit(folder / "config.json", pretrained_cfg=facts | values)

    return change


def stored_filters(folder):
    save_file({"mel": build(folder).front_end.filters * 2}, folder / "frontend.safetensors")


WAVEFORM = {
    "weights": one_weight,
    "sample rate": extractor(sampling_rate=8000),
    "normalising": extractor(do_normalize=False),
    "network": config(hidden_act="relu"),
    "epsilon": config(layer_norm_eps=1e-6),
}
ENCODERS = {
    "wav2vec2": WAVEFORM,
    "wavlm": WAVEFORM,
    "whisper": {
        "weights": one_weight,
        "transform length": extractor(n_fft=512),
        "dither": extractor(dither=0.1),
        "padding": extractor(padding_value=-1.0),
        "network": config(activation_function="relu"),
    },
    "ast": {
        "weights": one_weight,
        "sample rate": extractor(sampling_rate=8000),
        "mean": extractor(mean=-4.0),
        "std": extractor(std=4.0),
        "normalising": extractor(do_normalize=False),
        "network": config(hidden_act="relu"),
    },
}
SPECTROGRAM = {
    "weights": one_weight,
    "stored filters": stored_filters,
    "sample rate": front_end(sample_rate=7000, f_max=3500),
    "transform length": front_end(n_fft=300),
    "window length": front_end(win_length=220),
    "hop": front_end(hop_length=40),
    "mel bands": front_end(n_mels=40),
    "lowest frequency": front_end(f_min=60),
    "highest frequency": front_end(f_max=3900),
    "power": front_end(power=2.0),
    "logarithm": front_end(log="log10(mel + 0.001)"),
    "floor of the logarithm": front_end(log="ln(mel + 0.01)"),
    "centred frames": front_end(center=True),
    "scale of the filters": front_end(mel_scale="slaney"),
    "norm of the filters": front_end(norm="slaney"),
    "patch": front_end(patch_frames=40),
    "patch hop": front_end(patch_hop=48),
    "mean": input_of(mean=[0.4]),
    "std": input_of(std=[1.0]),
}


def check_all(folder, changes, tmp_path):
    found = {"": fingerprint(folder)}
    for name, change in changes.items():
        changed = shutil.copytree(folder, tmp_path / "changed" / name)
        change(changed)
        found[name] = fingerprint(changed)
    assert len(set(found.values())) == len(changes) + 1, found


@pytest.mark.parametrize("family", ENCODERS)
def test_a_changed_file_is_another_encoder(encoder_folder, tmp_path, family):
    check_all(encoder_folder(family), ENCODERS[family], tmp_path)


def test_a_changed_file_is_another_spectrogram_network(spectrogram_folder, tmp_path):
    check_all(spectrogram_folder(), SPECTROGRAM, tmp_path)


@pytest.mark.parametrize("family", ["wav2vec2", "whisper", "ast", "spectrogram"])
def test_a_version_makes_another_backbone(encoder_folder, spectrogram_folder, monkeypatch, family):
    folder = spectrogram_folder() if family == "spectrogram" else encoder_folder(family)
    found = {fingerprint(folder)}
    versions = [
        ("tl_core.types.FORMAT_VERSION", FORMAT_VERSION + 1),
        (AudioLoader, "version", AudioLoader.version + 1),
        (soxr, "__version__", "0.1"),
        (soundfile, "__libsndfile_version__", "0.1"),
    ]
    if family in ("whisper", "ast"):  # their spectrograms are made there
        versions.append(("transformers.__version__", "0.1"))
    for version in versions:
        with monkeypatch.context() as patch:
            patch.setattr(*version)
            found.add(fingerprint(folder))
    assert len(found) == len(versions) + 1


def test_the_rule_of_windows_counts(encoder_folder, monkeypatch):
    folder = encoder_folder("wav2vec2")
    backbone = build(folder)
    longer = replace(backbone.front_end, seconds=12.0)
    assert identity_of(longer, "w", "a", {}).fingerprint != identity_of(backbone.front_end, "w", "a", {}).fingerprint
    for rule, value in (("LADDER_STEP", 1.101), ("LADDER_START", 0.3)):
        with monkeypatch.context() as patch:
            patch.setattr(frontends, rule, value)
            assert fingerprint(folder) != backbone.fingerprint
    assert fingerprint(folder) == backbone.fingerprint


def test_bundles(bundle, tmp_path):
    before = fingerprint(bundle[0])
    tensors = torch.load(tmp_path / "tiny.pth")
    name, at, file = bundle[0].partition("@")
    moved = shutil.move(file, tmp_path / "moved.pth")
    os.utime(moved, (1, 1))
    assert fingerprint(f"{name}{at}{moved}") == before
    tensors["encoder.feature_projection.projection.bias"][0] += 1e-3
    torch.save(tensors, tmp_path / "tiny.pth")
    assert fingerprint(bundle[0]) != before


@pytest.mark.parametrize("family", ["wav2vec2", "spectrogram"])
def test_the_place_and_time_of_a_folder_do_not_count(encoder_folder, spectrogram_folder, tmp_path, monkeypatch, family):
    folder = spectrogram_folder() if family == "spectrogram" else encoder_folder(family)
    before = fingerprint(folder)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    assert fingerprint(folder) == before
    assert fingerprint(shutil.copytree(folder, tmp_path / "elsewhere" / "copied")) == before
    assert fingerprint(folder.rename(tmp_path / "renamed")) == before
    monkeypatch.chdir(tmp_path)
    assert fingerprint(Path("renamed")) == before
    if family == "wav2vec2":
        edit(tmp_path / "renamed" / "config.json", transformers_version="0", _name_or_path="me/mine")
        assert fingerprint(tmp_path / "renamed") == before
