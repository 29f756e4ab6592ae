"""Small sounds and tiny models, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tl_audio.loader import Clip

from tl_core import Backbone, State

FAMILIES = ("wav2vec2", "wav2vec2-stable", "hubert", "wavlm", "wavlm-stable", "data2vec-audio", "whisper", "ast")
CONVOLUTIONS = {
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 8),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
BUNDLE = {
    "extractor_conv_layer_config": [(16, 10, 5), (16, 8, 8), (16, 4, 8)],
    "extractor_conv_bias": False,
    "encoder_embed_dim": 32,
    "encoder_projection_dropout": 0.0,
    "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.0,
    "encoder_ff_interm_features": 48,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.0,
    "encoder_layer_drop": 0.0,
    "aux_num_out": None,
}
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.fixture(name="sound", scope="session")
def sound_fixture() -> Callable[..., np.ndarray]:
    """`sound` below."""
    return sound


@pytest.fixture(name="tiny_encoder", scope="session")
def tiny_encoder_fixture() -> Callable[..., torch.nn.Module]:
    """`tiny_encoder` below."""
    return tiny_encoder


@pytest.fixture(name="tiny_bundle", scope="session")
def tiny_bundle_fixture() -> Callable[..., torch.nn.Module]:
    """`tiny_bundle` below."""
    return tiny_bundle


@pytest.fixture(name="tiny_extractor", scope="session")
def tiny_extractor_fixture() -> Callable[..., object]:
    """`tiny_extractor` below."""
    return tiny_extractor


def sound(seconds: float = 1.0, rate: int = 16_000, pitch: float = 440.0, seed: int = 0) -> np.ndarray:
    """A tone that swells, with a little noise: float32 [T]."""
    time = np.arange(round(seconds * rate)) / rate
    noise = 0.05 * np.random.default_rng(seed).standard_normal(len(time))
    return (0.4 * np.sin(2 * np.pi * pitch * time) * np.sin(np.pi * time / max(seconds, 1e-9)) + noise).astype(
        np.float32
    )


def windows_of(backbone: Backbone, sound: Callable[..., np.ndarray]) -> list[State]:
    """Those of three short clips of different lengths."""
    rate = backbone.front_end.rate  # type: ignore[attr-defined]
    clips = [Clip(sound(0.31 + 0.01 * i, rate, seed=i), rate) for i in range(3)]
    return [window for clip in clips for window in backbone.prepare(clip).windows]


def tiny_encoder(family: str, *, head: bool = False) -> torch.nn.Module:
    """A transformers model of a few thousand weights, with or without a task's head on top."""
    import transformers as t

    kind = family.removesuffix("-stable")
    norms = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"} if kind != family else {}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        if kind == "whisper":
            config = t.WhisperConfig(
                d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
                encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=20, max_source_positions=50, num_mel_bins=80,
                pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
            )  # fmt: skip
            return (t.WhisperForConditionalGeneration if head else t.WhisperModel)(config).eval()
        if kind == "ast":
            config = t.ASTConfig(**LAYERS, max_length=64, num_mel_bins=32, num_labels=3)
            return (t.ASTForAudioClassification if head else t.ASTModel)(config).eval()
        names = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM", "data2vec-audio": "Data2VecAudio"}
        config = getattr(t, f"{names[kind]}Config")(**LAYERS, **CONVOLUTIONS, **norms, vocab_size=8)
        return getattr(t, f"{names[kind]}{'ForCTC' if head else 'Model'}")(config).eval()


def tiny_bundle(kind: str) -> torch.nn.Module:
    """A torchaudio model of a few thousand weights: base, stable (layer norm) or wavlm."""
    import torchaudio

    if kind == "wavlm":
        return torchaudio.models.wavlm_model(
            **BUNDLE, extractor_mode="group_norm", encoder_layer_norm_first=False, encoder_num_buckets=16,
            encoder_max_distance=40,
        )  # fmt: skip
    first = kind == "stable"
    mode = "layer_norm" if first else "group_norm"
    return torchaudio.models.wav2vec2_model(**BUNDLE, extractor_mode=mode, encoder_layer_norm_first=first)


def tiny_extractor(family: str):
    """The feature extractor that goes with `tiny_encoder`."""
    import transformers as t

    if family == "whisper":
        return t.WhisperFeatureExtractor(chunk_length=1)
    if family == "ast":
        return t.ASTFeatureExtractor(max_length=64, num_mel_bins=32)
    return t.Wav2Vec2FeatureExtractor(do_normalize=True)


@pytest.fixture
def encoder_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny encoder as the library does: config.json, preprocessor_config.json, model.safetensors."""

    def write(family: str = "wav2vec2", *, head: bool = False) -> Path:
        folder = tmp_path / f"{family}-{head}"
        tiny_encoder(family, head=head).save_pretrained(folder)
        tiny_extractor(family).save_pretrained(folder)
        return folder

    return write


@pytest.fixture(params=["base", "stable", "wavlm"])
def bundle(request, monkeypatch, tmp_path) -> tuple[str, torch.nn.Module]:
    """A tiny bundle TINY with its weights in a file: (name, library model)."""
    import torchaudio
    from tl_audio.bundles import BUNDLES, Bundle

    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = tiny_bundle(request.param).eval()
    monkeypatch.setattr(torchaudio.models, "tiny", lambda: tiny_bundle(request.param), raising=False)
    monkeypatch.setitem(BUNDLES, "TINY", Bundle("tiny", request.param == "stable", biased=request.param == "wavlm"))
    torch.save(model.state_dict(), tmp_path / "tiny.pth")
    return f"TINY@{tmp_path / 'tiny.pth'}", model


@pytest.fixture
def write_sound(tmp_path: Path) -> Callable[..., Path]:
    """Writes samples as an audio file of the suffix's format."""

    def write(name: str, samples: np.ndarray | None = None, rate: int = 16_000, **options: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        formats = {".opus": {"format": "OGG", "subtype": "OPUS"}, ".aif": {"format": "AIFF"}}
        data = sound(rate=rate) if samples is None else samples
        soundfile.write(path, data, rate, **{**formats.get(path.suffix, {}), **options})
        return path

    return write


@pytest.fixture
def spectrogram_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder with a tiny timm body and the front end that it wants."""

    def write(architecture: str = "test_efficientnet", **frontend: object) -> Path:
        import timm
        from safetensors.torch import save_file

        folder = tmp_path / f"spectrogram-{architecture}"
        folder.mkdir(exist_ok=True)
        with torch.random.fork_rng():
            torch.manual_seed(5)
            body = timm.create_model(architecture, pretrained=False, num_classes=4, in_chans=1)
        save_file(body.state_dict(), folder / "model.safetensors")
        numbers = {
            "sample_rate": 8000, "n_fft": 256, "win_length": 200, "hop_length": 80, "n_mels": 32, "f_min": 50,
            "f_max": 4000, "power": 1.0, "log": "ln(mel + 0.001)", "patch_frames": 48, "patch_hop": 24,
        } | frontend  # fmt: skip
        config = {
            "framework": "timm",
            "modality": "audio",
            "architecture": architecture,
            "model_args": {"in_chans": 1},
            "pretrained_cfg": {"classifier": body.pretrained_cfg["classifier"], "mean": [0.5], "std": [2.0]},
            "frontend": numbers,
        }
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return write
