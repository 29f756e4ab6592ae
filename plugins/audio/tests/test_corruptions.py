"""Corruptions of sounds do what their names say, and plain features tell sounds apart."""

from __future__ import annotations

import numpy as np
import pytest
from tl_audio.corruptions import CORRUPTIONS, clipping, few_bits, narrow_band, noise, quiet
from tl_audio.loader import AudioLoader, Clip

RATE = 16_000


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def tone(frequency: float, seconds: float = 0.5, rate: int = RATE) -> Clip:
    t = np.arange(round(seconds * rate)) / rate
    return Clip((0.5 * np.sin(2 * np.pi * frequency * t)).astype(np.float32), rate)


def level(samples: np.ndarray) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(np.square(samples, dtype=np.float64))) + 1e-12))


def test_quiet_is_quieter_by_six_decibels_a_degree() -> None:
    clip = tone(440)
    for severity in (1, 5):
        lost = level(clip.samples) - level(quiet(clip, severity, rng()).samples)
        assert lost == pytest.approx(6 * severity, abs=0.01)


def test_noise_is_as_far_below_the_sound_as_stated_and_pink() -> None:
    clip = tone(440, 2)
    for severity, distance in ((1, 20), (3, 10), (5, 0)):
        added = noise(clip, severity, rng()).samples - clip.samples
        assert level(clip.samples) - level(added) == pytest.approx(distance, abs=0.01)
    power = np.abs(np.fft.rfft(added)) ** 2
    low, high = power[200:400].sum(), power[6400:12800].sum()  # an octave each
    assert low == pytest.approx(high, rel=0.25)


def test_clipping_cuts_at_a_share_of_the_peak() -> None:
    found = clipping(tone(440), 2, rng()).samples
    assert (found.max(), found.min()) == pytest.approx((0.25, -0.25), abs=1e-4)
    assert np.mean(np.abs(found) > 0.249) > 0.6


def test_a_telephone_passes_speech_and_little_else() -> None:
    for frequency, passes in ((100, False), (1000, True), (5000, False)):
        clip = tone(frequency)
        lost = level(clip.samples) - level(narrow_band(clip, 3, rng()).samples)
        assert lost < 0.1 if passes else lost > 20


def test_few_bits_leave_few_values() -> None:
    clip = tone(440)
    for severity, bits in ((2, 6), (5, 3)):
        assert len(np.unique(few_bits(clip, severity, rng()).samples)) <= 2**bits + 1
    assert np.abs(few_bits(clip, 1, rng()).samples - clip.samples).max() < 0.02


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
@pytest.mark.parametrize("samples", [np.zeros(1000), np.array([0.3]), np.full(7, -1.0)], ids=["silence", "one", "few"])
def test_any_clip_stays_finite_and_as_long(name: str, samples: np.ndarray) -> None:
    for severity in range(1, 6):
        found = CORRUPTIONS[name](Clip(samples.astype(np.float32), 8000), severity, rng())
        assert (found.samples.shape, found.samples.dtype, found.rate) == (samples.shape, np.float32, 8000)
        assert np.isfinite(found.samples).all()


def test_plain_features_tell_pitches_and_rates_do_not() -> None:
    loader = AudioLoader()
    low, high = loader.plain(tone(300)), loader.plain(tone(2000))
    assert (low.shape, low.dtype) == ((448,), np.float32)
    bands = [int(found[:64].argmax()) for found in (low, high)]
    assert bands[0] < bands[1]
    resampled = loader.plain(tone(300, rate=44_100))
    assert int(resampled[:64].argmax()) == bands[0]
    np.testing.assert_allclose(resampled[bands[0]], low[bands[0]], atol=0.05)


@pytest.mark.parametrize("n", [1, 10, 400, 700, 5000 * 160])
def test_plain_features_of_any_length(n: int) -> None:
    found = AudioLoader().plain(Clip(np.linspace(-0.1, 0.1, n, dtype=np.float32), RATE))
    assert found.shape == (448,)
    assert np.isfinite(found).all()


def test_parts_follow_the_time() -> None:
    clip = Clip(np.concatenate([tone(300).samples, tone(2000).samples]), RATE)
    parts = AudioLoader().plain(clip)[192:].reshape(4, 64)
    assert parts[0].argmax() == parts[1].argmax() < parts[2].argmax() == parts[3].argmax()
