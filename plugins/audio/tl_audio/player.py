"""How a sound is shown in the report: an audio player and its waveform, with nothing loaded from outside."""

from __future__ import annotations

import base64
import io

import numpy as np

from tl_audio.frontends import resampled
from tl_audio.loader import Clip

MAX_SECONDS = 10
MAX_RATE = 16_000
_COLUMNS, _HEIGHT = 160, 40


def player(clip: Clip) -> str:
    """HTML: `<audio>` with at most 10 s of 16-bit WAV at 16 kHz or less, and a labelled SVG of the same stretch."""
    rate = min(clip.rate, MAX_RATE)
    samples = resampled(clip.samples[: MAX_SECONDS * clip.rate], clip.rate, rate)
    shown = f"{clip.seconds:.1f} s" if clip.seconds <= MAX_SECONDS else f"first {MAX_SECONDS} of {clip.seconds:.1f} s"
    peak = float(np.abs(samples).max())
    label = f"Waveform, {shown}, {clip.rate / 1000:g} kHz, peak {peak:.2f}"
    sound = base64.b64encode(_wav(samples, rate)).decode("ascii")
    return (
        '<div class="audio-sample">'
        f'<audio controls preload="none" src="data:audio/wav;base64,{sound}"></audio>'
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {_COLUMNS} {_HEIGHT}" width="{2 * _COLUMNS}" '
        f'height="{_HEIGHT}" preserveAspectRatio="none"><title>{label}</title>'
        f'<path d="{_outline(samples)}" fill="currentColor" stroke="currentColor" stroke-width="0.5"/></svg></div>'
    )


def _wav(samples: np.ndarray, rate: int) -> bytes:
    import soundfile

    buffer = io.BytesIO()  # Ogg would be smaller, but its encoder draws a random serial number
    soundfile.write(buffer, np.clip(samples, -1.0, 1.0), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _outline(samples: np.ndarray) -> str:
    """SVG path of the highest and lowest sample per column, scaled to the loudest sample."""
    columns = np.array_split(samples, min(_COLUMNS, len(samples)))
    peak = max(float(np.abs(samples).max()), 1e-9)
    middle = _HEIGHT / 2
    step = _COLUMNS / len(columns)
    top = [(i * step, middle - (middle - 1) * float(c.max()) / peak) for i, c in enumerate(columns)]
    bottom = [(i * step, middle - (middle - 1) * float(c.min()) / peak) for i, c in enumerate(columns)]
    return "M" + "L".join(f"{x:g},{y:.1f}" for x, y in top + bottom[::-1]) + "Z"
