"""What can be said of a sound without a network: how loud each band of frequencies is, and how that changes."""

from __future__ import annotations

from functools import cache

import numpy as np

from tl_audio.frontends import resampled
from tl_audio.loader import Clip

RATE = 16_000  # Hz
FRAME, HOP = 400, 160  # samples: 25 ms every 10 ms
POINTS = 512  # of a frame's spectrum
BANDS = 64
PARTS = 4  # of the clip
_FRAMES = 4096  # at once, so that an hour needs little memory


def plain(clip: Clip) -> np.ndarray:
    """float32 [448]: of each band's log power the mean, the spread, the spread of its changes, and the parts' means."""
    bands = _log_mel(resampled(clip.samples, clip.rate, RATE))  # [T, 64]
    change = np.diff(bands, axis=0) if len(bands) > 1 else np.zeros_like(bands)
    parts = [part.mean(axis=0) for part in np.array_split(bands, PARTS) if len(part)]
    parts += parts[-1:] * (PARTS - len(parts))  # fewer frames than parts: the last one stays
    return np.concatenate([bands.mean(axis=0), bands.std(axis=0), change.std(axis=0), *parts]).astype(np.float32)


def _log_mel(samples: np.ndarray) -> np.ndarray:
    """Log power by frame and band, float64 [T, 64]."""
    samples = np.pad(samples, (0, max(0, FRAME - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]  # [T, 400]
    window, filters = np.hanning(FRAME), _filters()
    blocks = [frames[at : at + _FRAMES] * window for at in range(0, len(frames), _FRAMES)]
    return np.concatenate([np.log(np.abs(np.fft.rfft(block, POINTS)) ** 2 @ filters + 1e-6) for block in blocks])


@cache
def _filters() -> np.ndarray:
    """Triangles, evenly apart on the mel scale from 0 Hz to half the rate: [257, 64]."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)  # Hz
    frequencies = np.fft.rfftfreq(POINTS, 1 / RATE)[:, None]
    rising = (frequencies - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - frequencies) / (corners[2:] - corners[1:-1])
    return np.asarray(np.minimum(rising, falling).clip(0))
