"""Every family is computed alike by every engine on this CPU: whole in float32, to an inner cut in bfloat16."""

from __future__ import annotations

import pytest
from tl_audio.catalogue import resolve
from tl_audio.loader import Clip

from tl_core.engines.conversion import openvino_version
from tl_core.testing import assert_engines_agree

from .conftest import FAMILIES


def check(name, sound, precision):
    (spec,) = resolve(str(name))
    backbone = spec.build()
    rate = backbone.front_end.rate
    windows = [
        window
        for seed, seconds in enumerate((0.31, 0.32, 0.315))
        for window in backbone.prepare(Clip(sound(seconds, rate, seed=seed), rate)).windows
    ]
    stop = None if precision == "float32" else len(backbone.segments) // 2
    engines = assert_engines_agree(backbone, windows, precision, stop)
    assert len(engines) == (2 if openvino_version() else 1), f"only {engines} take it"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_encoders(encoder_folder, sound, family, precision):
    check(encoder_folder(family), sound, precision)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bundles(bundle, sound, precision):
    check(bundle[0], sound, precision)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["test_efficientnet", "mobilenetv3_small_050", "test_resnet"])
def test_spectrogram_networks(spectrogram_folder, sound, architecture, precision):
    check(spectrogram_folder(architecture, n_fft=512, n_mels=64, patch_frames=96), sound, precision)
