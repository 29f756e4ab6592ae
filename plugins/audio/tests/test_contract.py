"""The audio plugin keeps tl's contract."""

from __future__ import annotations

import numpy as np
import pytest
import tl_audio
from tl_audio.catalogue import resolve

from tl_core.testing import ModalityContract


class TestAudio(ModalityContract):
    @pytest.fixture
    def plugin(self):
        return tl_audio

    @pytest.fixture
    def good(self, write_sound):
        noise = np.random.default_rng(0).standard_normal(30_000).astype(np.float32) * 0.1
        return [
            write_sound("tone.wav"),
            write_sound("noise.flac", noise, rate=22_050),
            write_sound("low.mp3", rate=8000),
        ]

    @pytest.fixture
    def bad(self, tmp_path, write_sound):
        paths = {"empty": tmp_path / "empty.wav", "not an audio file": tmp_path / "text.wav"}
        paths["empty"].write_bytes(b"")
        paths["not an audio file"].write_text("a letter to nobody " * 50)
        paths["truncated WAV"] = write_sound("cut.wav")
        paths["truncated WAV"].write_bytes(paths["truncated WAV"].read_bytes()[:9000])
        return paths

    @pytest.fixture
    def backbone(self, encoder_folder):
        (spec,) = resolve(str(encoder_folder("wav2vec2")))
        return spec
