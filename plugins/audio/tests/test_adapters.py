"""Adapters in every family."""

from __future__ import annotations

import pytest
from tl_audio.catalogue import resolve

from tl_core.testing import assert_adapters

from .conftest import FAMILIES, windows_of


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
