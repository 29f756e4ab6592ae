"""The pretraining sounds on disk (a byte per mel band and frame) and the batches that are cut and mixed from them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tl_audio.spectrogram import MelPatches, read_front_end
from torch import Tensor
from torch.nn.functional import grid_sample

from samples.pretrain.audio.synthesizer import FRAMES, Draws, Patches, draw_patches, mixed, play

_STEP, _LOWEST = 0.1, -16.0  # of a byte, in ln(power): 0.4 dB
_LOUDEST = 8.0  # ln of the power of the loudest frame at gain 0: speech at a usual level
_CHUNK = 64  # sounds played at once


def front_end(folder: Path) -> MelPatches:
    """The starter's own front end: pretraining sees sounds as the backbone will."""
    return read_front_end(folder, json.loads((folder / "config.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Sounds:
    """mel: uint8 [rounds * patches, FRAMES, mels]; frames: int64 [rounds * patches]; row r is of patch r % patches."""

    mel: np.ndarray
    frames: np.ndarray
    patches: int


def synthesise(folder: Path, config: Path, patches: int, rounds: int, seed: int) -> Sounds:
    """Play every patch once per round into `folder`, or read what is there; a stopped call goes on at its last round.

    The same seed gives the same sounds, and more rounds the same first ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn, fe = draw_patches(patches, seed), front_end(config)
    mels, frames = [], []
    for number in range(rounds):
        path = folder / f"round{number:03d}.npz"
        if not path.is_file():
            partial = path.with_suffix(".partial")
            mel, length = _round(drawn, fe, number, seed)
            with partial.open("wb") as stream:
                np.savez(stream, mel=mel, frames=length)
            partial.replace(path)
        with np.load(path) as arrays:
            mels.append(arrays["mel"])
            frames.append(arrays["frames"])
    return Sounds(np.concatenate(mels), np.concatenate(frames), patches)


def _round(drawn: Patches, fe: MelPatches, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    mels, frames = [], []
    with torch.inference_mode():
        for first in range(0, len(drawn.level), _CHUNK):
            chunk = torch.arange(first, min(first + _CHUNK, len(drawn.level)))
            power, length = play(drawn, chunk, fe, mixed(seed, number, first))
            log = (power + 1e-9).log() + _LOUDEST
            mels.append(((log - _LOWEST) / _STEP).round().clamp(0, 255).to(torch.uint8).numpy())
            frames.append(length.numpy())
    return np.concatenate(mels), np.concatenate(frames)


@dataclass(frozen=True)
class Cuts:
    """Draws batches [B, 1, patch frames, mels], as the front end gives them, with the patch of each row.

    A cut begins at any frame of the sound, runs up to a fifth faster or slower and a band or two higher or lower.
    Then come an equaliser, telephone bandwidth, another sound far behind, noise, a gain and masks.
    """

    sounds: Sounds
    front: MelPatches

    def draw(self, batch: int, seed: int) -> tuple[Tensor, Tensor]:
        draws = Draws(seed)
        rows = torch.randint(len(self.sounds.mel), (batch,), generator=draws.generator)
        log = torch.from_numpy(self.sounds.mel[rows.numpy()]).float() * _STEP + _LOWEST  # [B, FRAMES, mels]
        log, outside = self._cut(log, torch.from_numpy(self.sounds.frames[rows.numpy()]), draws)
        log = log + self._equaliser(draws, batch, log.shape[2])
        power = log.exp()
        behind = draws.log(1e-3, 0.2, batch) * draws.chance(0.25, batch)
        power = power + power.roll(1, 0) * behind[:, None, None]
        power = power + self._noise(draws, power)
        power = power * draws.log(3e-3, 10, batch)[:, None, None]
        power = power.masked_fill((outside & draws.chance(0.6, batch)[:, None]).unsqueeze(2), 0.0)
        scaled = (power + self.front.log_offset).log() * self.front.log_scale
        scaled = (scaled - self.front.mean) / self.front.std
        return self._mask(scaled, draws).unsqueeze(1), rows % self.sounds.patches

    def _cut(self, log: Tensor, frames: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """[B, FRAMES, mels] to [B, patch frames, mels], and which frames of it lie outside the sound [B, frames]."""
        b, wanted, mels = len(log), self.front.numbers["patch_frames"], log.shape[2]
        tempo = draws.log(0.83, 1.2, b)
        spare = frames - wanted * tempo  # below 0: the sound is shorter than a patch
        start = draws.uniform(0, 1, b) * spare.clamp_min(0) + draws.uniform(0, 1, b) ** 2 * spare.clamp_max(0)
        start = torch.where(draws.chance(0.3, b), 0, start)
        t = start[:, None] + tempo[:, None] * torch.arange(wanted)  # [B, wanted]
        f = draws.uniform(-2, 2, b)[:, None] + torch.arange(mels)  # [B, mels]
        across = ((2 * f + 1) / mels - 1)[:, None, :].expand(b, wanted, mels)
        along = ((2 * t + 1) / FRAMES - 1)[:, :, None].expand(b, wanted, mels)
        above = log - _LOWEST  # grid_sample pads with zeros, which here is silence
        grid = torch.stack([across, along], dim=-1)
        cut = grid_sample(above.unsqueeze(1), grid, padding_mode="zeros", align_corners=False)[:, 0]
        return cut + _LOWEST, (t < 0) | (t >= frames[:, None])

    def _equaliser(self, draws: Draws, b: int, mels: int) -> Tensor:
        """Log gain [B, 1, mels]: a tilt, two bumps, and for a fifth nothing above a cut-off."""
        band = torch.linspace(-1, 1, mels)
        gain = draws.normal(b, 1) * 0.8 * band
        for _ in range(2):
            centre, width = draws.uniform(-1, 1, b, 1), draws.log(0.1, 0.6, b, 1)
            gain = gain + draws.normal(b, 1) * torch.exp(-(((band - centre) / width) ** 2))
        above = torch.arange(mels) >= draws.uniform(36, mels, b)[:, None].round()
        return (gain - 12.0 * (above & draws.chance(0.25, b)[:, None])).unsqueeze(1)

    def _noise(self, draws: Draws, power: Tensor) -> Tensor:
        """Steady coloured noise [B, T, mels], relative to the loudest frame."""
        b, frames, mels = power.shape
        level = draws.log(1e-6, 0.05, b) * draws.chance(0.7, b) * power.mean(-1).amax(-1)
        colour = (draws.normal(b, 1) * 1.2 * torch.linspace(-1, 1, mels) * -1).exp()
        flicker = (0.45 * draws.normal(b, frames, mels)).exp()
        return level[:, None, None] * colour[:, None, :] * flicker

    def _mask(self, patches: Tensor, draws: Draws) -> Tensor:
        """One stretch of time and one of frequency silenced (SpecAugment, arXiv:1904.08779)."""
        silence = (math.log(self.front.log_offset) * self.front.log_scale - self.front.mean) / self.front.std
        b, frames, mels = patches.shape
        for size, axis, widest in ((frames, 1, 12), (mels, 2, 8)):
            width = draws.uniform(0, widest, b) * draws.chance(0.6, b)
            first = draws.uniform(0, 1, b) * (size - width)
            place = torch.arange(size)
            inside = (place >= first[:, None]) & (place < (first + width)[:, None])
            patches = patches.masked_fill(inside.unsqueeze(2 if axis == 1 else 1), silence)
        return patches
