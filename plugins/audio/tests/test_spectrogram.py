"""Spectrogram CNNs: the front end that the folder describes, the body cut into segments, and YAMNet itself."""

from __future__ import annotations

import csv
import json

import pytest
import timm
import torch
import torchaudio
from safetensors.torch import load_file, save_file
from tl_audio.catalogue import resolve
from tl_audio.loader import AudioLoader, Clip

from tl_core import UserError


def build(folder, random_seed=None):
    (spec,) = resolve(str(folder))
    return spec.build(random_seed)


@pytest.mark.parametrize(
    ("architecture", "segments"),
    [
        ("test_efficientnet", ("stem", "block_0", "block_1", "block_2", "block_3", "block_4", "pool")),
        ("mobilenetv3_small_050", ("stem", *(f"block_{i}" for i in range(6)), "pool")),
        ("test_resnet", ("stem", "layer1", "layer2", "layer3", "layer4", "pool")),
        ("test_byobnet", ("body",)),
    ],
)
def test_chain_equals_timm(spectrogram_folder, sound, architecture, segments):
    folder = spectrogram_folder(architecture)
    backbone = build(folder)
    assert backbone.segment_names == segments
    body = timm.create_model(architecture, pretrained=False, num_classes=4, in_chans=1)
    body.load_state_dict(load_file(folder / "model.safetensors"))
    body.reset_classifier(0)
    state = backbone.collate(backbone.prepare(Clip(sound(1.0, 8000), 8000)).windows)
    with torch.inference_mode():
        whole = backbone(state)["x"]
        torch.testing.assert_close(whole, body.eval()(state["x"]))
        assert whole.shape == (len(state["x"]), backbone.feature_dim)
        for cut in range(1, len(segments)):
            torch.testing.assert_close(backbone(backbone(state, stop=cut), start=cut)["x"], whole, rtol=0, atol=0)


def test_patches(spectrogram_folder, sound):
    backbone = build(spectrogram_folder())
    samples = sound(1.0, 8000)
    windows = backbone.prepare(Clip(samples, 8000)).windows
    mel = torchaudio.transforms.MelSpectrogram(
        8000, n_fft=256, win_length=200, hop_length=80, f_min=50, f_max=4000, n_mels=32, power=1.0, center=False
    )(torch.nn.functional.pad(torch.from_numpy(samples), (28, 28)))
    log = (((mel + 0.001).log() - 0.5) / 2.0).T
    assert len(log) == 98
    starts = [0, 24, 48, 50]  # the last one is shifted back to the end
    assert len(windows) == len(starts)
    for start, window in zip(starts, windows, strict=True):
        torch.testing.assert_close(window["x"], log[None, start : start + 48], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("center", [False, True])
def test_blocks_of_frames_join_without_a_seam(spectrogram_folder, sound, monkeypatch, center):
    backbone = build(spectrogram_folder(center=center, n_fft=256 if center else 257, power=2.0))
    clip = Clip(sound(3.0, 8000), 8000)
    whole = backbone.prepare(clip).windows
    monkeypatch.setattr("tl_audio.spectrogram._BLOCK", 7)
    for a, b in zip(whole, backbone.prepare(clip).windows, strict=True):
        torch.testing.assert_close(a["x"], b["x"], rtol=1e-4, atol=1e-4)
    mel = torchaudio.transforms.MelSpectrogram(
        8000, n_fft=256, win_length=200, hop_length=80, f_min=50, f_max=4000, n_mels=32, power=2.0, center=True
    )(torch.from_numpy(clip.samples))  # fmt: skip
    if center:
        log = (((mel + 0.001).log() - 0.5) / 2.0).T
        torch.testing.assert_close(whole[-1]["x"][0], log[-48:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [1, 100, 3_959, 3_960, 4_000])
def test_short_clips_fill_one_patch(spectrogram_folder, sound, length):
    windows = build(spectrogram_folder()).prepare(Clip(sound(1.0, 8000)[:length], 8000)).windows
    assert [tuple(window["x"].shape) for window in windows] == [(1, 48, 32)]


def test_random_twin(spectrogram_folder):
    folder = spectrogram_folder()
    (folder / "model.safetensors").rename(folder / "kept")
    assert build(folder, 1).fingerprint == build(folder, 1).fingerprint != build(folder, 2).fingerprint


def test_all_faults_of_a_front_end_at_once(spectrogram_folder):
    folder = spectrogram_folder(log="dB", n_mels=None, power="loud")
    with pytest.raises(UserError) as caught:
        build(folder)
    for part in ("frontend.n_mels is None", "frontend.log is 'dB'", "frontend.power is missing"):
        assert part in str(caught.value)


def test_other_faults(spectrogram_folder):
    folder = spectrogram_folder()
    config = json.loads((folder / "config.json").read_text())

    def fault(**changes):
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(UserError) as caught:
            build(folder)
        return str(caught.value)

    assert "names no architecture of timm" in fault(architecture="yamnot")
    assert "of another architecture" in fault(architecture="mobilenetv3_small_050")
    assert "timm can't build" in fault(model_args={"in_chans": 1, "wings": 2})
    save_file({"mel": torch.zeros(3, 4)}, folder / "frontend.safetensors")
    assert "holds no tensor 'mel' of shape [32, 129]" in fault()


@pytest.mark.shared
def test_yamnet_matches_its_recipe(shared_data):
    backbone = build(shared_data / "weights" / "yamnet_audioset")
    path = sorted((shared_data / "datasets" / "esc10" / "test").rglob("*.ogg"))[0]
    clip = AudioLoader().decode(path)
    windows = backbone.prepare(clip).windows
    mel = torchaudio.transforms.MelSpectrogram(
        16_000, n_fft=512, win_length=400, hop_length=160, f_min=125, f_max=7500, n_mels=64, power=1.0, center=False,
        norm=None, mel_scale="htk",
    )(torch.nn.functional.pad(torch.from_numpy(clip.samples), (56, 56)))  # fmt: skip
    log = (mel + 0.001).log().T
    assert (windows[0]["x"][0] - log[:96]).abs().mean() < 0.002
    assert (windows[-1]["x"][0] - log[-96:]).abs().mean() < 0.002


@pytest.mark.shared
def test_yamnet_beats_its_random_twin(shared_data):
    folder = shared_data / "datasets" / "esc10"
    with (folder / "metadata.csv").open() as table:
        kept = [row for row in csv.DictReader(table) if row["fold"] in "125"][::2]
    clips = [AudioLoader().decode(folder / row["file"]) for row in kept]
    names = sorted({row["label"] for row in kept})
    labels = torch.tensor([names.index(row["label"]) for row in kept])
    train = torch.tensor([row["fold"] != "5" for row in kept])

    def accuracy(backbone):
        with torch.inference_mode():
            windows = [window for clip in clips for window in backbone.prepare(clip).windows[:9:3]]  # 3 a clip
            x = backbone(backbone.collate(windows))["x"].reshape(len(clips), 3, -1).mean(1)
        x = (x - x[train].mean(0)) / (x[train].std(0) + 1e-6)
        kernel = x[train] @ x[train].T + x.shape[1] * torch.eye(len(x[train]))  # ridge regression on one-hot labels
        scores = x[~train] @ x[train].T @ torch.linalg.solve(kernel, torch.nn.functional.one_hot(labels[train]).float())
        return float((scores.argmax(1) == labels[~train]).float().mean())

    weights = shared_data / "weights" / "yamnet_audioset"
    pretrained, random = accuracy(build(weights)), accuracy(build(weights, 0))
    assert pretrained > 0.75
    assert pretrained > random + 0.2
