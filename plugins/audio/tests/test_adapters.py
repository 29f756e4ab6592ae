"""Adapters in every family."""

from __future__ import annotations

import pytest
from tl_audio.catalogue import resolve
from tl_audio.loader import Clip

from tl_core.testing import assert_adapters

FAMILIES = ("wav2vec2", "wav2vec2-stable", "hubert", "wavlm", "wavlm-stable", "data2vec-audio", "whisper", "ast")


def windows_of(backbone, sound):
    rate = backbone.front_end.rate
    clips = [Clip(sound(0.31 + 0.01 * i, rate, seed=i), rate) for i in range(3)]
    return [window for clip in clips for window in backbone.prepare(clip).windows]


@pytest.mark.parametrize("family", FAMILIES)
def test_encoders(encoder_folder, sound, family):
    (spec,) = resolve(str(encoder_folder(family)))
    assert assert_adapters(spec, windows_of(spec.build(), sound))


def test_bundles(bundle, sound):
    (spec,) = resolve(bundle[0])
    assert assert_adapters(spec, windows_of(spec.build(), sound))


@pytest.mark.parametrize("architecture", ["test_efficientnet", "mobilenetv3_small_050", "test_resnet"])
def test_spectrogram_networks(spectrogram_folder, sound, architecture):
    (spec,) = resolve(str(spectrogram_folder(architecture)))
    assert assert_adapters(spec, windows_of(spec.build(), sound))
