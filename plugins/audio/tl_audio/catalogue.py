"""Audio backbones by name: the catalogue, and what else can be named (folders, files, hub ids, torchaudio bundles).

backbones.csv holds what no library states, with its source: `card` is the model's card on the hub. What is not known
is left empty. architectures.json holds the configurations and what was counted of them (../counting.py).
"""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tl_audio.bundles import BUNDLES, RATE, build_bundle, is_downloaded
from tl_audio.encoders import FAMILIES, build_encoder
from tl_audio.frontends import Waveform
from tl_audio.spectrogram import build_spectrogram
from tl_core import BackboneSpec, UserError, folder_here, read_json

# Each preset holds a model for sounds of any kind and one for speech. WavLM comes from torchaudio here, which states
# a licence for it; its card on the hub does not.
_PRESETS = {
    "cpu/fast": ("ast-audioset-16", "distilhubert"),
    "cpu/balanced": ("ast-audioset", "WAVLM_BASE_PLUS"),
    "cpu/best": ("ast-audioset", "WAVLM_BASE_PLUS", "HUBERT_BASE", "whisper-base"),
    "cuda/fast": ("ast-audioset-16", "distilhubert", "WAVLM_BASE_PLUS"),
    "cuda/balanced": ("ast-audioset", "WAVLM_BASE_PLUS", "HUBERT_BASE", "whisper-small"),
    "cuda/best": ("ast-audioset", "WAVLM_LARGE", "HUBERT_LARGE", "WAV2VEC2_XLSR_300M", "whisper-medium"),
}
_STARTER = "starter-audio"
_FILLED = ("audio-spectrogram-transformer", "whisper")  # model types whose front end fills a short clip up to a window
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def catalogue() -> list[BackboneSpec]:
    """The backbones that are offered by name; facts that are not certain are None."""
    here = Path(__file__).parent
    architectures = read_json(here / "architectures.json")
    with (here / "backbones.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [_spec(row, architectures[row["architecture"]]) for row in rows]


def _spec(row: dict[str, str], counted: dict[str, Any]) -> BackboneSpec:
    """One line of backbones.csv with what was counted of its architecture."""
    name = row["name"]
    kind = counted["config"].get("model_type")
    takes = {**_takes(int(row["rate"]), float(row["seconds"]), kind), "sounds": row["sounds"]}
    facts: dict[str, Any] = {
        "params": counted["params"],
        "flops": counted["flops"],
        "feature_dim": counted["feature_dim"],
        "licence": row["licence"] or None,
        "pretrained_on": row["pretrained_on"] or None,
        "input": _input(takes),
        "takes": takes,
        "presets": tuple(preset for preset, names in _PRESETS.items() if name in names),
    }
    if name in BUNDLES:
        return replace(_bundle(name), **facts)
    if name == _STARTER:
        return _starter(facts)
    return BackboneSpec(name, "audio", "hub", row["location"], build_encoder, **facts)


def resolve(name: str) -> list[BackboneSpec]:
    """A spec for a folder, a weights file in one, BUNDLE@FILE, a torchaudio bundle or a hub id; empty for others.

    Tells what the model takes where its folder states it; of a hub id outside the catalogue, where the hub's cache
    has a copy. Raises UserError where the name is clearly one of these but unusable.
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
    if known:
        return [replace(spec, name=name) for spec in known]
    spec = BackboneSpec(name, "audio", "hub", name, build_encoder)
    cached = folder_here(spec)
    return [spec if cached is None else replace(spec, **_stated(cached))]


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
    provenance: dict[str, Any] = config.get("provenance") or {}
    sha256 = provenance.get("safetensors_sha256") if not options else None
    spec = BackboneSpec(name, "audio", "folder", str(folder), builder, sha256=sha256, options=options)
    return [replace(spec, **_stated(folder))]


def _stated(folder: Path) -> dict[str, Any]:
    """Facts that a model folder's own files state; absent ones are unknown, and so are those of a damaged folder."""
    try:
        config = read_json(folder / "config.json")
        kind = config.get("model_type")
        if config.get("framework") == "timm":
            numbers = config.get("frontend") or {}
            rate = numbers["sample_rate"]
            seconds = numbers["patch_frames"] * numbers["hop_length"] / rate
        else:
            extractor = read_json(folder / "preprocessor_config.json")
            rate, seconds = extractor["sampling_rate"], _seconds(kind, extractor)
        takes = _takes(int(rate), float(seconds), kind)
    except (UserError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return {}  # `build()` tells
    provenance = config.get("provenance") or {}
    return {
        "licence": provenance.get("licence"),
        "pretrained_on": provenance.get("pretrained_on"),
        "input": _input(takes),
        "takes": takes,
    }


def _seconds(kind: Any, extractor: dict[str, Any]) -> float:
    """The longest window that the front end of this model type makes."""
    if kind == "whisper":
        return float(extractor["chunk_length"])
    if kind == "audio-spectrogram-transformer":
        return float(extractor["max_length"]) / 100  # a frame every 10 ms
    return Waveform.seconds


def _takes(rate: int, seconds: float, kind: Any) -> dict[str, Any]:
    """What a front end takes in, as `BackboneSpec.takes` says it."""
    return {"rate": rate, "seconds": seconds, **({"filled": True} if kind in _FILLED else {})}


def _input(takes: dict[str, Any]) -> str:
    return f"{takes['rate'] / 1000:g} kHz, windows of {takes['seconds']:g} s"


def _starter(facts: dict[str, Any]) -> BackboneSpec:
    """The small network inside this package; its config.json names licence, data and the digest of its weights."""
    stated = read_json(Path(__file__).parent / "starter/config.json").get("provenance") or {}
    return BackboneSpec(
        _STARTER,
        "audio",
        "package",
        "tl_audio/starter",
        build_spectrogram,
        sha256=stated.get("safetensors_sha256"),
        **{**facts, "licence": stated.get("licence"), "pretrained_on": stated.get("pretrained_on")},
    )


def _bundle(name: str) -> BackboneSpec:
    takes = {**_takes(RATE, Waveform.seconds, None), "sounds": "speech"}
    return BackboneSpec(
        name,
        "audio",
        "package",
        f"torchaudio.pipelines.{name}",
        build_bundle,
        input=_input(takes),
        takes=takes,
        options={"bundle": name},
        offline=is_downloaded,
    )
