"""The rules by which a clip becomes windows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from tl_audio.frontends import AstMel, Waveform, WhisperMel, cut, repeated, resampled

from tl_core import UserError

KERNELS = ((10, 5), (8, 8), (4, 8))


def test_cutting_shows_every_sample_and_shifts_the_last_window_back():
    parts = cut(np.arange(25), 10)
    assert [(p[0], p[-1], len(p)) for p in parts] == [(0, 9, 10), (10, 19, 10), (15, 24, 10)]
    assert [p[0] for p in cut(np.arange(20), 10)] == [0, 10]
    assert [p[0] for p in cut(np.arange(20), 10, hop=4)] == [0, 4, 8, 10]
    assert [len(p) for p in cut(np.arange(3), 10)] == [3]


def test_repeating():
    np.testing.assert_array_equal(repeated(np.arange(3), 8), [0, 1, 2, 0, 1, 2, 0, 1])


def test_resampling_repeats_and_keeps_a_tone(sound):
    source = sound(1.0, 44_100)
    once, again = resampled(source, 44_100, 16_000), resampled(source, 44_100, 16_000)
    assert once.dtype == np.float32
    assert len(once) == 16_000
    np.testing.assert_array_equal(once, again)
    assert np.abs(np.fft.rfft(once)).argmax() == pytest.approx(440, abs=2)
    assert len(resampled(np.ones(1, np.float32), 1_000_000, 16_000)) >= 1


def test_waveform_widths_are_few_and_close():
    ladder = Waveform(16_000, KERNELS, None).ladder
    assert ladder[0] <= 0.25 * 16_000
    assert ladder[-1] == 160_000
    assert len(ladder) == len(set(ladder)) < 45
    assert all(b / a < 1.2 for a, b in pairwise(ladder))


def test_waveform_windows(sound):
    front_end = Waveform(16_000, KERNELS, epsilon=1e-7)
    for length in (1, 300, 4_000, 16_000, 160_000):
        (window,) = front_end.windows(sound(1.0)[:length] if length <= 16_000 else sound(10.0))
        assert front_end.bucket(window) in front_end.ladder
        assert 1 <= window["frames"] <= front_end.encoder_frames(front_end.bucket(window))
        assert front_end.rows(front_end.bucket(window)) >= 1
    long = front_end.windows(sound(25.0))
    assert [front_end.bucket(window) for window in long] == [160_000] * 3


def test_waveform_normalises_as_transformers_does(sound, tiny_extractor):
    samples = sound(1.0)
    (window,) = Waveform(16_000, KERNELS, epsilon=1e-7).windows(samples)
    theirs = tiny_extractor("wav2vec2")(samples, sampling_rate=16_000, return_tensors="np")["input_values"][0]
    np.testing.assert_array_equal(window["x"][: len(samples)].numpy(), theirs)


@pytest.mark.parametrize("family", ["wav2vec2", "wav2vec2-stable"])
def test_filling_up_hardly_moves_the_features(tiny_encoder, sound, family):
    model = tiny_encoder(family)
    config = model.config
    front_end = Waveform(16_000, tuple(zip(config.conv_kernel, config.conv_stride, strict=True)), epsilon=1e-7)

    def frames(samples):
        with torch.inference_mode():
            return model(samples.unsqueeze(0)).last_hidden_state[0]

    ours, silent, exact = [], [], []
    for seed, seconds in enumerate(np.linspace(0.3, 2.1, 12)):
        samples = sound(float(seconds), pitch=200.0 + 60 * seed, seed=seed)
        (window,) = front_end.windows(samples)
        own = window["x"][: len(samples)]
        exact.append(frames(own).mean(0))
        ours.append(frames(window["x"])[: window["frames"]].mean(0))
        silent.append(frames(torch.cat([own, torch.zeros(160_000 - len(own))])).mean(0))
    centre = torch.stack(exact).mean(0)
    ours, silent, exact = (torch.stack(rows) - centre for rows in (ours, silent, exact))
    assert torch.cosine_similarity(ours, exact).min() > 0.95
    assert torch.cosine_similarity(ours, exact).mean() > 0.99
    assert torch.cosine_similarity(silent, exact).mean() < 0.9


def test_whisper_counts_the_clips_own_frames(sound, tiny_extractor):
    front_end = WhisperMel(16_000, tiny_extractor("whisper"), positions=50)
    (short,) = front_end.windows(sound(0.31))
    assert short["x"].shape == (80, 100)
    assert short["frames"] == 16  # frames of 20 ms
    assert [int(window["frames"]) for window in front_end.windows(sound(2.5))] == [50, 50, 50]
    with pytest.raises(UserError, match="100 mel frames a window"):
        WhisperMel(16_000, tiny_extractor("whisper"), positions=1500)


def test_ast_windows(sound, tiny_extractor):
    front_end = AstMel(16_000, tiny_extractor("ast"))
    for length in (1, 399, 10_000):
        (window,) = front_end.windows(sound(1.0)[:length])
        assert window["x"].shape == (64, 32)
        assert torch.isfinite(window["x"]).all()
    assert len(front_end.windows(sound(1.5))) == 3  # 64 frames of 10 ms each
