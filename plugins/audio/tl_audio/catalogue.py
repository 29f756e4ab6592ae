"""Audio backbones by name: the catalogue, and what else can be named (folders, files, hub ids, torchaudio bundles)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tl_audio.bundles import BUNDLES, build_bundle, is_downloaded
from tl_audio.encoders import FAMILIES, build_encoder
from tl_audio.spectrogram import build_spectrogram
from tl_core import BackboneSpec, UserError, read_json

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WAVEFORM = "16 kHz, windows of 10 s"
_WHISPER = "16 kHz, windows of 30 s"
_LIBRISPEECH = "LibriSpeech, 960 h of English speech"
_WAVLM_DATA = "Libri-Light, GigaSpeech and VoxPopuli, 94,000 h of speech"
_WHISPER_DATA = "680,000 h of transcribed speech from the web"


def catalogue() -> list[BackboneSpec]:
    """The backbones that are offered by name; facts that are not certain are None."""
    return [
        _hub("ast-audioset", "MIT/ast-finetuned-audioset-10-10-0.4593", 86_187_264, 768, "BSD-3-Clause",
             "AudioSet, 527 kinds of sound", "16 kHz, windows of 10.24 s", default=True),
        _hub("wav2vec2-base", "facebook/wav2vec2-base", 94_371_712, 768, "Apache-2.0", _LIBRISPEECH, _WAVEFORM),
        _hub("wav2vec2-large-xlsr-53", "facebook/wav2vec2-large-xlsr-53", 315_438_720, 1024, "Apache-2.0",
             "speech in 53 languages", _WAVEFORM),
        _hub("hubert-base", "facebook/hubert-base-ls960", 94_371_712, 768, "Apache-2.0", _LIBRISPEECH, _WAVEFORM),
        _hub("wavlm-base-plus", "microsoft/wavlm-base-plus", 94_381_936, 768, None, _WAVLM_DATA, _WAVEFORM,
             default=True),
        _hub("data2vec-audio-base", "facebook/data2vec-audio-base", 93_164_288, 768, "Apache-2.0", _LIBRISPEECH,
             _WAVEFORM),
        _hub("whisper-tiny", "openai/whisper-tiny", 8_208_384, 384, "Apache-2.0", _WHISPER_DATA, _WHISPER),
        _hub("whisper-base", "openai/whisper-base", 20_590_592, 512, "Apache-2.0", _WHISPER_DATA, _WHISPER),
        _hub("whisper-small", "openai/whisper-small", 88_154_112, 768, "Apache-2.0", _WHISPER_DATA, _WHISPER),
        _bundle("WAV2VEC2_BASE", params=94_370_944, feature_dim=768, licence="MIT", pretrained_on=_LIBRISPEECH),
        _bundle("HUBERT_BASE", params=94_370_944, feature_dim=768, licence="MIT", pretrained_on=_LIBRISPEECH),
        _bundle("WAVLM_BASE_PLUS", params=94_381_168, feature_dim=768, licence="MIT", pretrained_on=_WAVLM_DATA),
        _starter(),
    ]  # fmt: skip


def resolve(name: str) -> list[BackboneSpec]:
    """A spec for a folder, a weights file in one, BUNDLE@FILE, a torchaudio bundle or a hub id; empty for others.

    Raises UserError where the name is clearly one of these but unusable.
    """
    bundle, at, file = name.partition("@")
    if at and bundle in BUNDLES:
        if not Path(file).expanduser().is_file():
            raise UserError(f"no such weights file: {file} (in {name})")
        return [replace(_bundle(bundle), name=name, source="file", location=file, offline=None)]
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(name, path, {})
    if path.is_file():
        return _folder(name, path.parent, {"file": path.name})
    if name in BUNDLES:
        return [_bundle(name)]
    if not _HUB_ID.fullmatch(name):
        return []
    known = [spec for spec in catalogue() if spec.location == name]
    return [replace(spec, name=name) for spec in known] or [
        BackboneSpec(name, "audio", "hub", name, builder=build_encoder)
    ]


def _folder(name: str, folder: Path, options: dict[str, Any]) -> list[BackboneSpec]:
    """The spec of a model folder, or nothing where config.json tells of another modality."""
    if not (folder / "config.json").is_file():
        return []
    config = read_json(folder / "config.json")
    if config.get("framework") == "timm" and config.get("modality") == "audio":
        builder = build_spectrogram
    elif config.get("model_type") in FAMILIES:
        builder = build_encoder
    else:
        return []
    facts: dict[str, Any] = config.get("provenance") or {}
    return [
        BackboneSpec(
            name,
            "audio",
            "folder",
            str(folder),
            builder=builder,
            sha256=facts.get("safetensors_sha256") if not options else None,
            licence=facts.get("licence"),
            pretrained_on=facts.get("pretrained_on"),
            options=options,
        )
    ]


def _starter() -> BackboneSpec:
    """The small network inside this package; its config.json names the digest of its weights."""
    facts = read_json(Path(__file__).parent / "starter/config.json").get("provenance") or {}
    return BackboneSpec(
        "starter-audio",
        "audio",
        "package",
        "tl_audio/starter",
        builder=build_spectrogram,
        sha256=facts.get("safetensors_sha256"),
        params=2_164_488,
        feature_dim=384,
        licence=facts.get("licence"),
        pretrained_on=facts.get("pretrained_on"),
        input="16 kHz, patches of 0.96 s",
    )


def _hub(
    name: str, repo: str, params: int, dim: int, licence: str | None, data: str, sound: str, default: bool = False
) -> BackboneSpec:
    return BackboneSpec(
        name,
        "audio",
        "hub",
        repo,
        builder=build_encoder,
        params=params,
        feature_dim=dim,
        licence=licence,
        pretrained_on=data,
        input=sound,
        default=default,
    )


def _bundle(name: str, **facts: Any) -> BackboneSpec:
    return BackboneSpec(
        name,
        "audio",
        "package",
        f"torchaudio.pipelines.{name}",
        builder=build_bundle,
        input=_WAVEFORM,
        options={"bundle": name},
        offline=is_downloaded,
        **facts,
    )
