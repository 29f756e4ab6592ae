"""What goes wrong with sounds on their way from a room to a model, at five severities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tl_core import Corrupt

if TYPE_CHECKING:
    from tl_audio.loader import Clip

_GAIN = (-6, -12, -18, -24, -30)  # dB
_NOISE = (20, 15, 10, 5, 0)  # dB that the sound is above it
_CEILING = (0.7, 0.5, 0.35, 0.2, 0.1)  # of the peak
_BAND = ((100, 6000), (200, 4500), (300, 3400), (400, 2600), (500, 2000))  # Hz; the third is the telephone's
_BITS = (8, 6, 5, 4, 3)


def quiet(clip: Clip, severity: int, rng: np.random.Generator) -> Clip:
    """Too far from the microphone: less gain."""
    return replace(clip, samples=clip.samples * np.float32(10 ** (_GAIN[severity - 1] / 20)))


def noise(clip: Clip, severity: int, rng: np.random.Generator) -> Clip:
    """A room that is not silent: pink noise, as much power in each octave, by its distance to the clip's level."""
    n = len(clip.samples)
    spectrum = np.fft.rfft(rng.standard_normal(n, dtype=np.float32))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum), dtype=np.float32))
    drawn = np.fft.irfft(spectrum, n)
    level = _level(clip.samples) * 10 ** (-_NOISE[severity - 1] / 20)
    return replace(clip, samples=clip.samples + (drawn * (level / max(_level(drawn), 1e-12))).astype(np.float32))


def clipping(clip: Clip, severity: int, rng: np.random.Generator) -> Clip:
    """Too loud for the microphone: samples beyond a share of the peak are cut off."""
    ceiling = _CEILING[severity - 1] * float(np.abs(clip.samples).max())
    return replace(clip, samples=clip.samples.clip(-ceiling, ceiling))


def narrow_band(clip: Clip, severity: int, rng: np.random.Generator) -> Clip:
    """A telephone: nothing below and above a band of frequencies."""
    low, high = _BAND[severity - 1]
    spectrum = np.fft.rfft(clip.samples)
    frequencies = np.fft.rfftfreq(len(clip.samples), 1 / clip.rate)
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    return replace(clip, samples=np.fft.irfft(spectrum, len(clip.samples)).astype(np.float32))


def few_bits(clip: Clip, severity: int, rng: np.random.Generator) -> Clip:
    """Compressed too hard: samples in few steps, finer near silence, by the mu law of ITU-T G.711."""
    mu, steps = 255.0, 2 ** (_BITS[severity - 1] - 1)
    peak = max(float(np.abs(clip.samples).max()), 1e-12)
    curved = np.sign(clip.samples) * np.log1p(mu * np.abs(clip.samples) / peak) / np.log1p(mu)
    coarse = np.rint(curved * steps) / steps
    samples = np.sign(coarse) * np.expm1(np.abs(coarse) * np.log1p(mu)) / mu * peak
    return replace(clip, samples=samples.astype(np.float32))


def _level(samples: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


CORRUPTIONS: Mapping[str, Corrupt] = {
    "background noise": noise,
    "quiet": quiet,
    "clipping": clipping,
    "narrow band": narrow_band,
    "few bits": few_bits,
}
