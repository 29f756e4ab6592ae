"""Animal calls: a larynx or a rubbing wing, a mouth in front of it, and the gesture that makes it that animal's call.

Every call is float64 [T] at RATE, its peak at 1. Pitch and size of the animal come from the random generator, over
ranges that overlap between kinds: what tells kinds apart is how a call moves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Sound = npt.NDArray[np.float64]
Rng = np.random.Generator
Mouth = Sequence[tuple[Sound | float, float, float]]  # (centre in Hz, width in Hz, gain) of each resonance

RATE = 16_000  # Hz
TOP = 7_400.0  # Hz; no partial lies above it
FRAME = 128  # samples from one setting of the mouth to the next


def call(kind: str, rng: Rng) -> Sound:
    """A new call of a kind in KINDS, up to about a second."""
    sound = KINDS[kind](rng)
    return np.asarray(sound / (np.abs(sound).max() + 1e-9))


def bend(seconds: float, points: Sequence[tuple[float, float]]) -> Sound:
    """A smooth line through (share of the duration, value), one value for each sample."""
    x = np.linspace(0, 1, max(2, round(seconds * RATE)))
    at, value = zip(*points)
    line = np.interp(x, at, value)
    width = max(1, len(line) // 12)
    padded = np.pad(line, width, mode="edge")
    smooth: Sound = np.convolve(padded, np.hanning(2 * width + 1) / width, mode="valid")[: len(line)]
    return smooth


def swell(seconds: float, attack: float, release: float) -> Sound:
    """Loudness that rises within `attack` seconds and falls within the last `release` seconds."""
    time = np.arange(max(2, round(seconds * RATE))) / RATE
    rise = np.clip(time / max(attack, 1e-3), 0, 1)
    fall = np.clip((seconds - time) / max(release, 1e-3), 0, 1)
    shape: Sound = np.sin(rise * np.pi / 2) ** 2 * np.sin(fall * np.pi / 2) ** 2
    return shape


def voice(
    pitch: Sound,
    loudness: Sound,
    mouth: Mouth,
    rng: Rng,
    tilt: float = 1.0,
    breath: float = 0.05,
    rough: float = 0.0,
) -> Sound:
    """Partials of a pitch (Hz), and breath, through the resonances of a mouth.

    tilt: how fast partials weaken, in powers of their number; rough: how much every other cycle differs, and how
    unsteady the pitch is.
    """
    count = len(pitch)
    drift = np.interp(np.arange(count), np.linspace(0, count, 1 + count // 160), rng.normal(0, 1, 1 + count // 160))
    pitch = pitch * (1 + (0.004 + 0.05 * rough) * drift)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    frames = np.arange(0, count, FRAME)
    centres = [np.broadcast_to(np.asarray(centre, float), (count,))[frames] for centre, _, _ in mouth]
    sound = np.zeros(count)
    numbers = np.arange(1, int(TOP / max(40.0, float(pitch.min()))) + 1, dtype=float)
    if rough > 0.15:
        numbers = np.concatenate([numbers, numbers[: len(numbers) // 2] - 0.5])  # every second cycle differs
    for number in numbers[:90]:
        partial = pitch[frames] * number
        gain = _through(partial, mouth, centres) * number**-tilt * (partial < TOP)
        if number % 1:
            gain = gain * rough
        sound += np.interp(np.arange(count), frames, gain) * np.sin(number * phase + rng.uniform(0, 2 * np.pi))
    sound /= np.sqrt(np.mean(sound**2)) + 1e-9
    if breath:
        sound = sound + breath * _breath(count, mouth, centres, rng)
    return sound * loudness


def _through(hertz: Sound, mouth: Mouth, centres: Sequence[Sound]) -> Sound:
    """Gain of the mouth at each frame's frequency."""
    total = np.full(len(hertz), 0.02)
    for (_, width, gain), centre in zip(mouth, centres):
        total = total + gain / (1 + ((hertz - centre) / width) ** 2)
    return total


def _breath(count: int, mouth: Mouth, centres: Sequence[Sound], rng: Rng) -> Sound:
    """Noise through the mouth, frame by frame (overlap and add)."""
    size = 4 * FRAME
    window = np.hanning(size)
    hertz = np.fft.rfftfreq(size, 1 / RATE)
    padded = rng.normal(0, 1, count + 2 * size)
    out = np.zeros(count + 2 * size)
    for start in range(0, count + size, 2 * FRAME):
        frame = min(len(centres[0]) - 1, max(0, (start - size // 2) // FRAME))
        gain = np.full(len(hertz), 0.02)
        for (_, width, strength), centre in zip(mouth, centres):
            gain += strength / (1 + ((hertz - centre[frame]) / width) ** 2)
        spectrum = np.fft.rfft(padded[start : start + size] * window)
        out[start : start + size] += np.fft.irfft(spectrum * gain) * window
    cut = out[size : size + count]
    return np.asarray(cut / (np.sqrt(np.mean(cut**2)) + 1e-9))


def _series(notes: Sequence[Sound], gaps: Sequence[float]) -> Sound:
    """Notes one after the other, with a pause (seconds) after each."""
    pieces = []
    for note, gap in zip(notes, gaps):
        pieces += [note, np.zeros(max(0, round(gap * RATE)))]
    return np.concatenate(pieces)


def _throat(size: float, tones: Sequence[tuple[float, float]]) -> Mouth:
    """Steady resonances (Hz, gain) of a mouth of some size; 1 is a middling animal."""
    return [(hertz / size, 0.12 * hertz / size + 60, gain) for hertz, gain in tones]


def _cat(rng: Rng) -> Sound:
    """One long note; the mouth opens and closes again."""
    seconds, base, size = rng.uniform(0.5, 0.9), rng.uniform(220, 800), rng.uniform(0.65, 1.6)
    peak = rng.uniform(0.25, 0.5)
    pitch = base * bend(
        seconds, [(0, rng.uniform(0.75, 0.95)), (peak, rng.uniform(1.1, 1.3)), (1, rng.uniform(0.6, 0.9))]
    )
    low = bend(seconds, [(0, 420), (peak, rng.uniform(900, 1300)), (0.8, 700), (1, 450)]) / size
    high = bend(seconds, [(0, rng.uniform(2000, 2600)), (peak, 1800), (1, rng.uniform(900, 1200))]) / size
    loud = bend(seconds, [(0, 0), (0.15, 0.5), (peak, 1), (0.75, 0.6), (1, 0)])
    mouth: Mouth = [(low, 160.0, 1.0), (high, 240.0, 0.7), (3600 / size, 400.0, 0.25)]
    return voice(pitch, loud, mouth, rng, 0.6, rng.uniform(0.03, 0.15), rng.uniform(0, 0.2))


def _cow(rng: Rng) -> Sound:
    """One long note behind closed lips that open late; the pitch rises and breaks."""
    seconds, base, size = rng.uniform(0.65, 0.92), rng.uniform(120, 480), rng.uniform(0.55, 1.5)
    pitch = base * bend(seconds, [(0, 0.75), (0.4, 1.0), (0.75, rng.uniform(1.0, 1.25)), (1, 0.8)])
    low = bend(seconds, [(0, 260), (0.35, 300), (0.6, rng.uniform(550, 750)), (1, 520)]) / size
    high = bend(seconds, [(0, 700), (0.4, 800), (1, 1200)]) / size
    loud = bend(seconds, [(0, 0), (0.2, 0.5), (0.7, 1), (1, 0)])
    mouth: Mouth = [(low, 110.0, 1.0), (high, 200.0, 0.45), (2400 / size, 350.0, 0.12)]
    return voice(pitch, loud, mouth, rng, 0.8, rng.uniform(0.03, 0.12), rng.uniform(0, 0.25))


def _cricket(rng: Rng) -> Sound:
    """A hard tone in short pulses, three to six to a chirp; or one trill throughout."""
    tone, rate = rng.uniform(1300, 5800), rng.uniform(22, 48)
    pulse_seconds = rng.uniform(0.5, 0.8) / rate
    pulse = swell(pulse_seconds, 0.3 * pulse_seconds, 0.4 * pulse_seconds)
    pulses, chirps = (int(rng.integers(3, 7)), int(rng.integers(2, 5))) if rng.random() < 0.75 else (30, 1)
    notes, gaps = [], []
    for _ in range(chirps):
        for index in range(pulses):
            turns = np.cumsum(tone * (1 + 0.01 * rng.normal()) * np.linspace(1.02, 0.98, len(pulse))) / RATE
            tooth = np.sin(2 * np.pi * turns) + 0.15 * np.sin(4 * np.pi * turns) * (tone < TOP / 2)
            notes.append((tooth + rng.normal(0, 0.1, len(pulse))) * pulse * (0.5 + 0.5 * min(1.0, (index + 1) / 3)))
            gaps.append(1 / rate - pulse_seconds)
        gaps[-1] += rng.uniform(0.08, 0.25)
    return _series(notes, gaps)


def _dog(rng: Rng) -> Sound:
    """One to three barks: short, harsh, up and down at once."""
    base, size, count = rng.uniform(170, 700), rng.uniform(0.6, 1.7), int(rng.integers(1, 4))
    notes, gaps = [], []
    for _ in range(count):
        seconds = rng.uniform(0.1, 0.2)
        pitch = base * rng.uniform(0.92, 1.08) * bend(seconds, [(0, 0.6), (0.3, 1.25), (1, 0.65)])
        low = bend(seconds, [(0, 450), (0.35, 850), (1, 500)]) / size
        mouth: Mouth = [(low, 150.0, 1.0), (1500 / size, 220.0, 0.6), (2900 / size, 400.0, 0.3)]
        loud = swell(seconds, 0.012, 0.6 * seconds)
        notes.append(voice(pitch, loud, mouth, rng, 0.4, rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.6)))
        gaps.append(rng.uniform(0.08, 0.3))
    return _series(notes, gaps)


def _duck(rng: Rng) -> Sound:
    """Two to five nasal notes, each softer and a little lower than the one before."""
    base, size, count = rng.uniform(170, 550), rng.uniform(0.6, 1.7), int(rng.integers(2, 6))
    seconds, gap = rng.uniform(0.09, 0.17), rng.uniform(0.03, 0.1)
    mouth = _throat(size, [(1150, 1.0), (2300, 0.9), (3300, 0.5)])
    notes = []
    for index in range(count):
        fall = 0.95**index
        pitch = base * fall * bend(seconds, [(0, 1.05), (0.3, 1.1), (1, 0.88)])
        loud = swell(seconds, 0.025, 0.5 * seconds) * 0.82**index
        notes.append(voice(pitch, loud, mouth, rng, 0.15, rng.uniform(0.05, 0.2), rng.uniform(0.3, 0.7)))
    return _series(notes, [gap] * count)


def _frog(rng: Rng) -> Sound:
    """Croaks: separate pulses, one by one to the ear, faster and louder towards the end."""
    rate, low, count = rng.uniform(24, 70), np.exp(rng.uniform(np.log(300), np.log(2400))), int(rng.integers(1, 4))
    time = np.arange(round(0.06 * RATE)) / RATE
    ring = np.zeros(len(time))
    for hertz, gain in ((low, 1.0), (low * rng.uniform(1.6, 2.4), 0.7), (low * rng.uniform(2.6, 3.6), 0.4)):
        ring += gain * np.exp(-time / rng.uniform(0.002, 0.008)) * np.sin(2 * np.pi * min(hertz, TOP) * time)
    notes, gaps = [], []
    for _ in range(count):
        seconds = rng.uniform(0.18, 0.4) if count > 1 else rng.uniform(0.35, 0.8)
        note = np.zeros(round(seconds * RATE) + len(ring))
        turns = np.cumsum(rate * bend(seconds, [(0, 0.8), (1, rng.uniform(1.0, 1.4))])) / RATE
        for start in np.flatnonzero(np.diff(np.floor(turns))):
            note[start : start + len(ring)] += ring * rng.uniform(0.8, 1.0) * (0.35 + 0.65 * start / (seconds * RATE))
        notes.append(note)
        gaps.append(rng.uniform(0.05, 0.2))
    return _series(notes, gaps)


def _owl(rng: Rng) -> Sound:
    """Hoots: soft tones, nearly without overtones, in a rhythm of long and short."""
    base = np.exp(rng.uniform(np.log(260), np.log(2200)))
    rhythm = (
        [(0.28, 0.16), (0.1, 0.05), (0.24, 0.1)] if rng.random() < 0.5 else [(0.26, 0.14)] * int(rng.integers(1, 4))
    )
    notes = []
    for long, _ in rhythm:
        seconds = long * rng.uniform(0.8, 1.25)
        pitch = base * bend(seconds, [(0, 0.94), (0.3, 1.0), (1, rng.uniform(0.88, 0.98))])
        loud = swell(seconds, 0.35 * seconds, 0.45 * seconds)
        notes.append(voice(pitch, loud, [(base, 0.5 * base, 1.0)], rng, 2.5, rng.uniform(0.02, 0.1)))
    return _series(notes, [gap for _, gap in rhythm])


def _sheep(rng: Rng) -> Sound:
    """One long note, shaken several times a second."""
    seconds, base, size = rng.uniform(0.5, 0.9), rng.uniform(170, 650), rng.uniform(0.6, 1.6)
    time = np.arange(round(seconds * RATE)) / RATE
    shake = np.sin(
        2 * np.pi * np.cumsum(rng.uniform(6.5, 12.0) * bend(seconds, [(0, 1), (1, 0.85)])[: len(time)]) / RATE
    )
    pitch = (
        base * bend(seconds, [(0, 0.95), (0.3, 1.05), (1, 0.85)])[: len(time)] * (1 + rng.uniform(0.04, 0.1) * shake)
    )
    loud = swell(seconds, 0.05, 0.25)[: len(time)] * (1 - rng.uniform(0.3, 0.6) * (0.5 + 0.5 * shake))
    mouth = _throat(size, [(650, 1.0), (1750, 0.7), (2700, 0.4)])
    return voice(pitch, loud, mouth, rng, 0.4, rng.uniform(0.05, 0.2), rng.uniform(0.05, 0.3))


KINDS: dict[str, Callable[[Rng], Sound]] = {
    "cat": _cat,
    "cow": _cow,
    "cricket": _cricket,
    "dog": _dog,
    "duck": _duck,
    "frog": _frog,
    "owl": _owl,
    "sheep": _sheep,
}
