"""What lies between an animal and a sound file: air, walls, weather, other noise, and a microphone.

Sounds are float64 [T] at RATE.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from calls import RATE, Rng, Sound


def filtered(sound: Sound, gain: Callable[[Sound], Sound]) -> Sound:
    """The sound with each frequency (Hz) weighted by gain."""
    size = 1 << (len(sound) + RATE // 4 - 1).bit_length()
    spectrum = np.fft.rfft(sound, size)
    hertz = np.asarray(np.fft.rfftfreq(size, 1 / RATE), np.float64)
    return np.asarray(np.fft.irfft(spectrum * gain(hertz), size)[: len(sound)])


def echoed(sound: Sound, seconds: float, share: float, rng: Rng) -> Sound:
    """The sound in a room: `seconds` until the echo has fallen by 60 dB; share: loudness of the echo, 0 none."""
    time = np.arange(max(2, round(seconds * RATE))) / RATE
    tail = rng.normal(0, 1, len(time)) * np.exp(-6.9 * time / seconds)
    tail[: round(0.004 * RATE)] = 0
    tail *= share / (np.sqrt(np.sum(tail**2)) + 1e-9)
    tail[0] = 1.0
    size = 1 << (len(sound) + len(tail) - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: len(sound)]


def _coloured(count: int, power: float, rng: Rng) -> Sound:
    """Noise whose amplitude falls with frequency to some power: 0 white, 0.5 pink, 1 brown."""
    return filtered(rng.normal(0, 1, count), lambda hertz: (np.maximum(hertz, 40) / 1000) ** -power)


def _slow(count: int, hertz: float, rng: Rng) -> Sound:
    """A positive random line that moves `hertz` times a second."""
    knots = rng.uniform(0.1, 1.0, 3 + round(hertz * count / RATE))
    return np.interp(np.linspace(0, len(knots) - 1, count), np.arange(len(knots)), knots)


def _wind(count: int, rng: Rng) -> Sound:
    return _coloured(count, 1.2, rng) * _slow(count, 3, rng)


def _rain(count: int, rng: Rng) -> Sound:
    drops = np.where(rng.random(count) < 0.004, rng.exponential(12, count), 0) * rng.choice([-1, 1], count)
    return filtered(drops + 0.5 * rng.normal(0, 1, count), lambda hertz: np.clip(hertz / 2500, 0.05, 1))


def _road(count: int, rng: Rng) -> Sound:
    return _coloured(count, 0.8, rng) * _slow(count, 1, rng) + 0.6 * _hum(count, rng)


def _brook(count: int, rng: Rng) -> Sound:
    centre = rng.uniform(500, 2500)
    water = filtered(rng.normal(0, 1, count), lambda hertz: 1 / (1 + ((hertz - centre) / 700) ** 2))
    return water * _slow(count, 25, rng)


def _hum(count: int, rng: Rng) -> Sound:
    time = np.arange(count) / RATE
    base = rng.choice([50.0, 60.0, 100.0, 120.0])
    tones = [np.sin(2 * np.pi * base * k * time + rng.uniform(0, 6)) / k for k in range(1, 12)]
    return np.asarray(np.sum(tones, axis=0))


def _hiss(count: int, rng: Rng) -> Sound:
    return rng.normal(0, 1, count)


def _crowd(count: int, rng: Rng) -> Sound:
    """People far away: noise in the range of speech, with the rhythm of syllables."""
    voices = np.zeros(count)
    for centre in rng.uniform(250, 2800, 4):
        band = filtered(rng.normal(0, 1, count), lambda hertz, at=centre: 1 / (1 + ((hertz - at) / 200) ** 2))  # type: ignore[misc]
        voices += band * _slow(count, 6, rng)
    return voices


def _rustle(count: int, rng: Rng) -> Sound:
    steps = _slow(count, 12, rng) ** 4
    return filtered(rng.normal(0, 1, count), lambda hertz: np.clip(hertz / 3000, 0.1, 1)) * steps


NOISES: dict[str, Callable[[int, Rng], Sound]] = {
    "wind": _wind,
    "rain": _rain,
    "road": _road,
    "brook": _brook,
    "hum": _hum,
    "hiss": _hiss,
    "crowd": _crowd,
    "rustle": _rustle,
}


def level(sound: Sound) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(sound**2))) + 1e-9
