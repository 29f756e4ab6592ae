"""Sounds for tl: a loader for audio files, transformers and torchaudio encoders, spectrogram CNNs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_core import hookimpl

if TYPE_CHECKING:
    from tl_core import BackboneSpec, HeadSpec, Loader


@hookimpl
def tl_loaders() -> list[Loader]:
    from tl_audio.loader import AudioLoader

    return [AudioLoader()]


@hookimpl
def tl_backbones() -> list[BackboneSpec]:
    from tl_audio.catalogue import catalogue

    return catalogue()


@hookimpl
def tl_resolve_backbone(name: str, modality: str) -> list[BackboneSpec]:
    from tl_audio.catalogue import resolve

    return resolve(name) if modality == "audio" else []


@hookimpl
def tl_heads() -> list[HeadSpec]:
    from tl_core import linear_heads

    return linear_heads("audio")
