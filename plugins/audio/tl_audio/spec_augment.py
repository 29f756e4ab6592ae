"""SpecAugment: spectrograms with bands of frequencies and stretches of time hidden."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MASKS = 2  # over the mel bands, and as many over time
MELS = 1 / 8  # of the mel bands, hidden by a mask at most: 8 of 64
FRAMES = 1 / 16  # of the sound's frames, hidden by a mask at most: 64 of 1000


def spec_augment(x: Tensor, rng: np.random.Generator, *, time: int, mel: int) -> Tensor:
    """A copy of log-mel windows, float32 [W, ...], with two masks over the mel bands and two over the frames of each.

    time, mel: the dimensions of the two, the others being the window's and a channel. Widths are even from 0 to the
    greatest, places even where the mask fits. What is hidden becomes the mean of the window's own sound, of which
    nothing is left to hear; the silence that fills a short clip up is neither masked nor counted. A window's variant
    depends on its place in the batch, its content and rng alone. Park et al., Interspeech 2019, arXiv:1904.08779; sizes
    as in Kong et al., TASLP 2020, arXiv:1912.10211, which are mild enough for short clips.
    """
    moved = x.movedim((time, mel), (-2, -1))
    maps = moved.reshape(len(x), -1, moved.shape[-2], moved.shape[-1])  # [W, 1, T, M]
    draws = torch.from_numpy(rng.random((MASKS, 4, len(x)))).to(x.device)
    frames = _sounding(maps)  # [W]
    bands = torch.full_like(frames, maps.shape[-1])
    within = (torch.arange(maps.shape[-2], device=x.device) < frames[:, None])[:, None, :, None]  # [W, 1, T, 1]
    hidden = torch.zeros_like(maps[:, :1], dtype=torch.bool)  # [W, 1, T, M]
    for long, late, wide, high in draws:
        hidden |= _span(frames, FRAMES, long, late, maps.shape[-2])[:, None, :, None]
        hidden |= _span(bands, MELS, wide, high, maps.shape[-1])[:, None, None, :]
    mean = (maps * within).sum(dim=(1, 2, 3)) / (frames.clamp(min=1) * maps[0, :, 0].numel())
    masked = torch.where(hidden & within, mean[:, None, None, None].to(x.dtype), maps)
    return masked.reshape(moved.shape).movedim((-2, -1), (time, mel)).contiguous()


def _sounding(maps: Tensor) -> Tensor:
    """Frames of each window before the silence that fills it up: int64 [W].

    Such silence is one value in all bands, to the end; a front end makes it of zeros.
    """
    last = maps[:, :, -1:, -1:]
    differs = (maps != last).any(dim=3).any(dim=1)  # [W, T]
    place = torch.arange(1, maps.shape[2] + 1, device=maps.device)
    return (differs * place).amax(dim=1)


def _span(lengths: Tensor, share: float, width: Tensor, place: Tensor, size: int) -> Tensor:
    """A stretch of each length, of that share of it at most: bool [W, size]. width, place: draws from 0 to 1, [W]."""
    most = (lengths * share).floor()
    width = (width * (most + 1)).floor()
    first = (place * (lengths - width + 1)).floor()
    at = torch.arange(size, device=lengths.device)
    return (at >= first[:, None]) & (at < (first + width)[:, None])
