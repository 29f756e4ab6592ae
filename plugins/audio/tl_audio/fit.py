"""What is looked at in a sound, and which sounds a backbone does not suit: rates, channels and lengths."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tl_core import BackboneSpec, Facts, FitWarning

MANY = 0.1  # share of the clips that is worth a line
LOW_RATE = 0.75  # of the backbone's rate: a quarter of what it hears by is empty
HEARD = 0.99  # of a clip's energy lies below its `reach`
LOST_IN_MONO = 0.25  # of the energy; ordinary stereo loses a tenth, independent channels a half
LONG_SECONDS = 30.0  # past it a label is often that of a part
LONG_WINDOWS = 3  # of a clip: with fewer, their mean is still near to each
SHORT = 0.25  # of the window: of a clip below, the network looks at filling for three quarters of its time
LISTENED = 5.0  # seconds from the start by which channels and reach go
OFFERED = 2  # backbones that a remedy names
_FRAME = 4096  # samples of a spectrum: steps of 4 Hz at 16 kHz

Catalogue = Callable[[], Sequence[BackboneSpec]]
"""Where backbones that suit better are looked for."""


def measure(sound: Any, seconds: float) -> Facts:
    """Rate (Hz), channels, seconds; of the first 5 s the reach in Hz and the share of energy lost in the mono mix.

    sound: an open soundfile.SoundFile at its start; seconds: its duration. Silence has no reach.
    """
    rate = int(sound.samplerate)
    facts: dict[str, float | str] = {"rate": rate, "channels": int(sound.channels), "seconds": round(seconds, 3)}
    samples = sound.read(int(LISTENED * rate), dtype="float32", always_2d=True).astype(np.float64)  # [T, channels]
    mono = samples.mean(axis=1)
    each, mixed = float(np.square(samples).mean()), float(np.square(mono).mean()) if len(mono) else 0.0
    if len(mono) and each > 0:
        facts["lost_in_mono"] = round(1 - mixed / each, 3)
        if (reach := _reach(mono, rate)) is not None:
            facts["reach"] = reach
    return facts


def misfits(spec: BackboneSpec, facts: Sequence[Facts], catalogue: Catalogue) -> list[FitWarning]:
    """Rates below or above the backbone's, channels that cancel out, clips that are too long or too short for it."""
    return [*_rate(spec, facts, catalogue), *_channels(facts), *_length(spec, facts)]


def _rate(spec: BackboneSpec, facts: Sequence[Facts], catalogue: Catalogue) -> list[FitWarning]:
    rate = spec.takes.get("rate")
    if not rate:
        return []
    found = []
    low = [float(fact["rate"]) for fact in facts if float(fact["rate"]) < LOW_RATE * rate]
    if len(low) >= MANY * len(facts):
        found.append(
            FitWarning(
                "sample rate",
                f"{len(low) / len(facts):.0%} of the clips have at most {max(low):,.0f} samples a second, the "
                f"pretraining had {rate:,}: the upper {1 - max(low) / rate:.0%} of the band is empty",
                "use recordings at a higher rate where there are any; otherwise trust this ranking, no published one",
            )
        )
    reaches = [float(fact["reach"]) for fact in facts if "reach" in fact]
    above = sum(reach > rate / 2 for reach in reaches)
    if spec.takes.get("sounds") == "general" and reaches and above >= MANY * len(reaches):
        others = [other for other in catalogue() if other.takes.get("sounds") == "general"]
        higher = [other for other in others if other.takes.get("rate", 0) > rate]
        higher = sorted(higher, key=lambda other: (-other.takes["rate"], other.params or 0))[:OFFERED]
        names = " or ".join(f"{other.name} ({other.takes['rate']:,} Hz)" for other in higher)
        found.append(
            FitWarning(
                "sample rate",
                f"in {above / len(reaches):.0%} of the clips over {1 - HEARD:.0%} of the energy lies above "
                f"{rate / 2:,.0f} Hz, which isn't heard at {rate:,} Hz",
                f"where that tells the classes apart, {f'choose {names}' if names else 'play the clips slower'}",
            )
        )
    return found


def _channels(facts: Sequence[Facts]) -> list[FitWarning]:
    known = [float(fact["lost_in_mono"]) for fact in facts if "lost_in_mono" in fact]
    lossy = [lost for lost in known if lost >= LOST_IN_MONO]
    if not known or len(lossy) < MANY * len(known):
        return []
    return [
        FitWarning(
            "channels",
            f"{len(lossy) / len(known):.0%} of the clips lose over {LOST_IN_MONO:.0%} of their energy where channels "
            "are mixed down to mono",
            "save the channel that counts as a file of its own",
        )
    ]


def _length(spec: BackboneSpec, facts: Sequence[Facts]) -> list[FitWarning]:
    window = spec.takes.get("seconds")
    if not window:
        return []
    seconds = np.array([float(fact["seconds"]) for fact in facts])
    long = seconds > max(LONG_SECONDS, LONG_WINDOWS * window)
    if long.mean() >= MANY:
        typical = float(np.median(seconds[long]))
        return [
            FitWarning(
                "clip length",
                f"{long.mean():.0%} of the clips last some {typical:,.0f} s: each costs {math.ceil(typical / window)} "
                f"windows of {window:g} s, whose mean may bury what decides the label",
                "cut them to the part that the label is about",
            )
        ]
    short = seconds < SHORT * window
    if spec.takes.get("filled") and short.mean() >= 1 - MANY:
        return [
            FitWarning(
                "clip length",
                f"nearly all clips are shorter than {SHORT * window:.1f} s, and filled up with silence to {window:g} "
                "s: that costs as much as full windows",
                "a backbone that takes any length is quicker; or keep more of the recording around each clip",
            )
        ]
    return []


def _reach(mono: np.ndarray, rate: int) -> float | None:
    """The frequency in Hz below which 99% of the energy lies, to 10 Hz; None for silence.

    mono: float64 [T].
    """
    mono = mono - mono.mean()
    frames = np.pad(mono, (0, -len(mono) % _FRAME)).reshape(-1, _FRAME) * np.hanning(_FRAME)
    power = np.square(np.abs(np.fft.rfft(frames))).sum(axis=0)  # [_FRAME / 2 + 1]
    if power.sum() <= 0:
        return None
    step = int(np.searchsorted(np.cumsum(power), HEARD * power.sum()))
    return float(round(step * rate / _FRAME, -1))
