"""A random synthesizer: patches drawn at random, played as many varied instances, straight to mel power.

A patch is one or two layers. A layer is a sequence of up to six segments; each segment has an amplitude of a tone
(frequency modulation into a summation formula: from a sine to a glottal pulse train) and of noise, a pitch and four
resonances. Segments glide, decay, tremble and loop as the patch says: syllables, notes, textures, impacts and calls
are regions of the same space. Time-varying resonances, rooms and the sum of layers are applied to mel power, where
they cost 64 values per 10 ms instead of 160.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from tl_audio.spectrogram import MelPatches
from torch import Tensor

VERSION = 1  # of the sounds that a seed gives
SEGMENTS = 6
FORMANTS = 4
FRAMES = 200  # 2 s
_CONTROL = 1000  # Hz: pitch and amplitudes are drawn at this rate
_FAMILIES = ("speech", "notes", "texture", "impact", "call")
_SHARES = (0.4, 0.17, 0.15, 0.13, 0.15)
_SECOND_LAYER = 0.3  # of the patches

Layer = dict[str, Tensor]


@dataclass(frozen=True)
class Patches:
    """Patches by number. layers: two tables of tensors [patches, ...]; level: [patches] power of the second layer."""

    layers: tuple[Layer, Layer]
    level: Tensor


def mixed(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(2))


class Draws:
    """Random numbers of one generator, in the shapes that the synthesizer asks for."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=self.generator)

    def log(self, low: float, high: float, *shape: int) -> Tensor:
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def chance(self, share: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator) < share

    def choice(self, values: tuple[float, ...], *shape: int) -> Tensor:
        return torch.tensor(values)[torch.randint(len(values), shape, generator=self.generator)]


def draw_patches(count: int, seed: int) -> Patches:
    """`count` random patches."""
    draws = Draws(seed)
    families = torch.multinomial(torch.tensor(_SHARES), 2 * count, replacement=True, generator=draws.generator)
    first, second = (_layer(draws, family) for family in families.view(2, count))
    level = draws.log(0.03, 0.6, count) * draws.chance(_SECOND_LAYER, count)
    return Patches((first, second), level)


def descriptors(patches: Patches) -> Tensor:
    """What each patch is made of, standardised [patches, D]: pitch, brightness, tempo, tone, noise, resonances."""
    first = patches.layers[0]
    within = torch.arange(SEGMENTS) < first["count"][:, None]

    def mean(values: Tensor) -> Tensor:
        return (values * within).sum(1) / within.sum(1)

    def spread(values: Tensor) -> Tensor:
        return (mean(values**2) - mean(values) ** 2).clamp_min(0).sqrt()

    centre = (first["gain"] * first["formant"].log()).sum(-1) / first["gain"].sum(-1)
    tone = (first["tone"] / first["noise"]).log()
    columns = [
        first["f0"].log(),
        first["bright"].log(),
        first["fm_index"],
        first["vibrato"],
        first["attack"].log(),
        1 / first["decay"].clamp_min(0.02),
        first["glide"].log(),
        first["tremble"].sqrt(),
        first["tremble"].sqrt() * first["tremble_hz"].log(),
        first["count"],
        first["loop"],
        first["tilt"],
        first["floor"].log(),
        patches.level,
        mean(first["seconds"].log()),
        (first["seconds"] * within).sum(1).log(),
        mean(tone),
        spread(tone),
        spread(first["pitch"]),
        mean(centre),
        spread(centre),
        mean(first["width"].log().mean(-1)),
        *first["pitch"][:, :2].T,
        *centre[:, :4].T,
        *tone[:, :4].T,
    ]
    table = torch.stack(columns, 1)
    return (table - table.mean(0)) / table.std(0).clamp_min(1e-6)


def _layer(draws: Draws, family: Tensor) -> Layer:
    """One layer per patch: every family is drawn for every patch and the patch takes the one of its own."""
    n = len(family)
    options = [draw(draws, n) for draw in (_speech, _notes, _texture, _impact, _call)]
    return {name: torch.stack([o[name] for o in options])[family, torch.arange(n)] for name in options[0]}


def _general(draws: Draws, n: int) -> Layer:
    k = (n, SEGMENTS)
    return {
        "count": draws.uniform(1, SEGMENTS + 0.999, n).floor(),
        "seconds": draws.log(0.08, 0.5, *k),
        "f0": draws.log(80, 2000, n),
        "pitch": draws.uniform(-7, 7, *k),  # semitones
        "tone": draws.log(0.2, 1.0, *k),
        "noise": draws.log(0.003, 0.1, *k),
        "ratio": draws.choice((1.0, 1.0, 1.0, 2.0, 3.0), n),
        "beta": draws.choice((1.0, 1.0, 2.0), n),
        "bright": draws.log(1e-6, 0.3, n),
        "fm_ratio": draws.choice((1.0, 2.0, 0.5, 1.41, 3.0), n),
        "fm_index": draws.log(0.1, 4.0, n) * draws.chance(0.5, n),
        "vibrato_hz": draws.log(3, 9, n),
        "vibrato": draws.log(0.05, 0.8, n) * draws.chance(0.4, n),  # semitones
        "attack": draws.log(0.002, 0.06, n),
        "decay": draws.log(0.03, 0.6, n) / draws.chance(0.6, n).float(),  # infinite: no decay
        "glide": draws.log(0.004, 0.08, n),  # seconds
        "tremble_hz": draws.log(4, 60, n),
        "tremble": draws.log(1, 20, n) * draws.chance(0.25, n),
        "tremble_jitter": draws.uniform(0, 1, n),
        "loop": draws.chance(0.7, n).float(),
        "formant": draws.log(150, 7000, *k, FORMANTS),
        "width": draws.log(80, 1500, *k, FORMANTS),
        "gain": draws.log(0.01, 1.0, *k, FORMANTS),
        "floor": draws.log(3e-4, 0.1, n),
        "tilt": draws.uniform(-0.5, 2.0, n),
    }


def _speech(draws: Draws, n: int) -> Layer:
    """Syllables: a glottal source or hiss through three formants that move from one phone to the next."""
    k = (n, SEGMENTS)
    hiss = draws.chance(0.35, *k)
    silent = draws.chance(0.08, *k)
    f1, f2 = draws.log(260, 900, *k), draws.log(800, 2500, *k)
    f2 = torch.maximum(f2, f1 * 1.3)
    vowel = torch.stack([f1, f2, draws.log(2200, 3300, *k), draws.log(3300, 4500, *k)], -1)
    fricative = torch.stack([draws.log(1500, 7000, *k) for _ in range(FORMANTS)], -1)
    wide = draws.log(400, 2000, *k, FORMANTS)
    return _general(draws, n) | {
        "count": draws.uniform(2, SEGMENTS + 0.999, n).floor(),
        "seconds": draws.log(0.05, 0.2, *k),
        "f0": draws.log(100, 220, n),
        "pitch": draws.uniform(-2.5, 2.5, *k),
        "tone": torch.where(hiss | silent, draws.log(0.001, 0.02, *k), draws.log(0.3, 1.0, *k)),
        "noise": torch.where(hiss & ~silent, draws.log(0.05, 0.5, *k), draws.log(0.002, 0.03, *k)),
        "ratio": torch.ones(n),
        "beta": torch.ones(n),
        "bright": draws.log(0.01, 0.2, n),
        "fm_index": torch.zeros(n),
        "vibrato": torch.full((n,), 0.1),
        "attack": draws.log(0.004, 0.02, n),
        "decay": torch.full((n,), math.inf),
        "glide": draws.log(0.02, 0.07, n),
        "tremble": torch.zeros(n),
        "loop": draws.chance(0.2, n).float(),
        "formant": torch.where(hiss.unsqueeze(-1), fricative, vowel),
        "width": torch.where(hiss.unsqueeze(-1), wide, draws.log(50, 180, *k, FORMANTS)),
        "gain": torch.tensor([1.0, 0.5, 0.2, 0.1]) * draws.log(0.3, 1.5, *k, FORMANTS),
        "floor": draws.log(3e-4, 3e-3, n),
        "tilt": draws.uniform(0.5, 1.5, n),
    }


def _notes(draws: Draws, n: int) -> Layer:
    """Notes of instruments and alarms."""
    return _general(draws, n) | {"pitch": draws.uniform(-9, 9, n, SEGMENTS).round()}


def _texture(draws: Draws, n: int) -> Layer:
    """Noise in bands, steady or crackling: wind, rain, waves, engines, fire."""
    k = (n, SEGMENTS)
    return _general(draws, n) | {
        "seconds": draws.log(0.2, 1.2, *k),
        "tone": draws.log(0.001, 0.3, n, 1).expand(k),
        "noise": draws.log(0.1, 1.0, *k),
        "f0": draws.log(40, 300, n),
        "pitch": draws.uniform(-1, 1, *k),
        "decay": torch.full((n,), math.inf),
        "glide": draws.log(0.05, 0.4, n),
        "tremble_hz": draws.log(3, 80, n),
        "tremble": draws.log(2, 40, n) * draws.chance(0.6, n),
        "width": draws.log(200, 4000, *k, FORMANTS),
        "loop": torch.ones(n),
    }


def _impact(draws: Draws, n: int) -> Layer:
    """Struck and clicking things: inharmonic tones and bursts that die away."""
    k = (n, SEGMENTS)
    return _general(draws, n) | {
        "seconds": draws.log(0.06, 0.7, *k),
        "f0": draws.log(60, 3000, n),
        "fm_ratio": draws.choice((1.41, 2.76, 0.71, 5.4, 1.73), n),
        "fm_index": draws.log(0.5, 6.0, n),
        "noise": draws.log(0.02, 1.0, n, 1).expand(k),
        "attack": draws.log(0.001, 0.006, n),
        "decay": draws.log(0.006, 0.25, n),
        "glide": torch.full((n,), 0.004),
        "tremble": torch.zeros(n),
    }


def _call(draws: Draws, n: int) -> Layer:
    """Calls: pitch that sweeps widely, with pauses: birds, dogs, babies, sirens."""
    k = (n, SEGMENTS)
    pause = draws.chance(0.3, *k)
    return _general(draws, n) | {
        "f0": draws.log(200, 4000, n),
        "pitch": draws.uniform(-14, 14, *k) * draws.uniform(0.2, 1, n, 1),
        "tone": torch.where(pause, 0.002, draws.log(0.3, 1.0, *k)),
        "noise": torch.where(pause, 0.001, draws.log(0.003, 0.1, n, 1).expand(k)),
        "seconds": draws.log(0.04, 0.4, *k),
        "glide": draws.log(0.02, 0.2, n),
        "vibrato_hz": draws.log(4, 30, n),
        "vibrato": draws.log(0.1, 3.0, n) * draws.chance(0.4, n),
        "decay": torch.full((n,), math.inf),
        "loop": draws.chance(0.8, n).float(),
    }


def play(patches: Patches, numbers: Tensor, front_end: MelPatches, seed: int) -> tuple[Tensor, Tensor]:
    """One varied instance of each patch: mel power [B, FRAMES, mels], loudest frame 1, and its length in frames [B].

    numbers: int64 [B], the patches to play. Pitch, tempo, resonances and amplitudes vary, half of the instances
    stand in a room.
    """
    draws = Draws(seed)
    b = len(numbers)
    tempo, scale = draws.log(0.75, 1.33, b), draws.log(0.82, 1.22, b)
    transpose = draws.normal(b).clamp(-2, 2) * 4.0
    room = draws.log(0.08, 1.2, b), draws.log(0.01, 0.5, b) * draws.chance(0.5, b)
    total: Tensor | None = None
    length = torch.zeros(b)
    for place, layer in enumerate(patches.layers):
        level = torch.ones(b) if place == 0 else patches.level[numbers] * draws.log(0.5, 2.0, b)
        rows = level.nonzero().squeeze(1)
        mine = {name: value[numbers[rows]] for name, value in layer.items()}
        varied = _vary(mine, draws, tempo[rows], scale[rows], transpose[rows])
        power, seconds = _sound(varied, front_end, draws)
        power = power / power.sum(-1).amax(-1)[:, None, None].clamp_min(1e-12)
        if total is None:
            total, length = power, seconds
        else:
            total = total.index_add(0, rows, power * level[rows, None, None])
            length = length.index_copy(0, rows, torch.maximum(length[rows], seconds))
    assert total is not None
    total = _reverberate(total, *room)
    total = total / total.sum(-1).amax(-1)[:, None, None].clamp_min(1e-12)
    frames = (length * 100 + 0.5 * 100 * room[0] * (room[1] > 0)).ceil().clamp(8, FRAMES)
    return total, frames.long()


def _vary(layer: Layer, draws: Draws, tempo: Tensor, scale: Tensor, transpose: Tensor) -> Layer:
    b = len(tempo)
    k = (b, SEGMENTS)
    row = (slice(None), None)
    return layer | {
        "seconds": layer["seconds"] * tempo[row] * (0.15 * draws.normal(*k)).exp(),
        "f0": layer["f0"] * 2 ** (transpose / 12),
        "pitch": layer["pitch"] + 0.7 * draws.normal(*k) + draws.normal(b, 1) * torch.linspace(-1, 1, SEGMENTS),
        "tone": layer["tone"] * (0.3 * draws.normal(*k)).exp(),
        "noise": layer["noise"] * (0.4 * draws.normal(*k)).exp(),
        "formant": layer["formant"] * scale[:, None, None] * (0.05 * draws.normal(*k, FORMANTS)).exp(),
        "width": layer["width"] * (0.2 * draws.normal(*k, FORMANTS)).exp(),
        "gain": layer["gain"] * (0.3 * draws.normal(*k, FORMANTS)).exp(),
        "bright": (layer["bright"] * (0.4 * draws.normal(b)).exp()).clamp(1e-7, 0.4),
        "fm_index": layer["fm_index"] * (0.2 * draws.normal(b)).exp(),
        "decay": layer["decay"] * (0.2 * draws.normal(b)).exp(),
        "tilt": layer["tilt"] + 0.2 * draws.normal(b),
        "tremble_hz": layer["tremble_hz"] * (0.1 * draws.normal(b)).exp(),
        "vibrato_hz": layer["vibrato_hz"] * (0.1 * draws.normal(b)).exp(),
    }


def _sound(layer: Layer, front_end: MelPatches, draws: Draws) -> tuple[Tensor, Tensor]:
    """Mel power [B, FRAMES, mels] of one layer, and the seconds after which it is silent [B]."""
    numbers = front_end.numbers
    samples = (FRAMES - 1) * numbers["hop_length"] + numbers["win_length"]
    points = math.ceil(samples / front_end.rate * _CONTROL)
    time = torch.arange(points) / _CONTROL
    within = torch.arange(SEGMENTS) < layer["count"][:, None]
    ends = (layer["seconds"] * within).cumsum(1)  # [B, K]
    span = ends[:, -1:]
    looped = torch.where(layer["loop"][:, None] > 0, time % span, time)  # [B, points]
    segment = (looped[:, :, None] >= ends[:, None, :]).sum(-1)
    alive = segment < SEGMENTS
    segment = torch.minimum(segment, layer["count"][:, None].long() - 1)
    starts = (ends - layer["seconds"] * within).gather(1, segment)
    since = (looped - starts).clamp_min(0)
    envelope = (since / layer["attack"][:, None]).clamp(max=1) * torch.exp(-since / layer["decay"][:, None])
    rate = (
        layer["tremble_hz"][:, None]
        * (layer["tremble_jitter"][:, None] * draws.normal(len(since), points // 20 + 1).repeat_interleave(20, 1))[
            :, :points
        ].exp()
    )
    envelope = envelope * torch.exp(-layer["tremble"][:, None] * ((rate / _CONTROL).cumsum(1) % 1)) * alive
    glide = (layer["glide"] * _CONTROL).long().clamp_min(1)
    tone = _smooth(layer["tone"].gather(1, segment), glide) * envelope
    noise = _smooth(layer["noise"].gather(1, segment), glide) * envelope
    vibrato = layer["vibrato"][:, None] * torch.sin(2 * math.pi * layer["vibrato_hz"][:, None] * time)
    semitones = _smooth(layer["pitch"].gather(1, segment), glide) + vibrato
    f0 = (layer["f0"][:, None] * 2 ** (semitones / 12)).clamp(30, 7000)

    def fast(track: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(track.unsqueeze(1), size=samples, mode="linear")[:, 0]

    wave = _tone(layer, fast(f0), front_end.rate) * fast(tone)
    wave = wave + draws.normal(*wave.shape) * fast(noise)
    margin = (numbers["n_fft"] - numbers["win_length"]) // 2
    spectrum = front_end.spectrogram(torch.nn.functional.pad(wave, (margin, margin)))  # [B, bins, FRAMES]
    power = (front_end.filters @ spectrum).transpose(1, 2)
    frame = segment[:, :: points // FRAMES][:, :FRAMES]
    seconds = torch.where(layer["loop"] > 0, FRAMES / 100, span[:, 0].clamp(max=FRAMES / 100))
    return power * _resonances(layer, frame, front_end), seconds


def _tone(layer: Layer, f0: Tensor, rate: int) -> Tensor:
    """Frequency modulation into Moorer's summation formula: partials carrier + k * beta * f0 of amplitude a ** k."""
    cycles = ((f0.double() / rate).cumsum(1) % 1e4).float() * (2 * math.pi)

    def at(ratio: Tensor) -> Tensor:
        return cycles * ratio[:, None]

    a = layer["bright"] ** (layer["f0"] * layer["beta"] / (rate / 2))
    a = a.clamp(max=0.985)[:, None]
    modulated = at(layer["ratio"])
    if bool((layer["fm_index"] > 0).any()):
        modulated = modulated + layer["fm_index"][:, None] * torch.sin(at(layer["fm_ratio"]))
    beta = at(layer["beta"])
    wave = (torch.sin(modulated) - a * torch.sin(modulated - beta)) / (1 + a * a - 2 * a * torch.cos(beta))
    return wave * (2 * (1 - a * a)).sqrt()


def _smooth(track: Tensor, width: Tensor) -> Tensor:
    """Moving average [B, T] over `width` points, another for each row, looking back."""
    total = torch.nn.functional.pad(track.double().cumsum(1), (1, 0))
    now = torch.arange(1, track.shape[1] + 1).expand(track.shape)
    past = (now - width[:, None]).clamp_min(0)
    return ((total.gather(1, now) - total.gather(1, past)) / (now - past)).float()


def _resonances(layer: Layer, frame: Tensor, front_end: MelPatches) -> Tensor:
    """Power gain [B, FRAMES, mels] of the resonances of the segment that each frame [B, FRAMES] lies in."""
    bins = front_end.filters.shape[1]
    hz = torch.linspace(0, front_end.rate / 2, bins)
    centre = (front_end.filters @ hz) / front_end.filters.sum(1)  # [mels]
    glide = (layer["glide"] * 100).round().long().clamp_min(1)
    gain = layer["floor"][:, None, None].expand(len(frame), FRAMES, len(centre)).clone()
    for j in range(FORMANTS):
        at = _smooth(layer["formant"][:, :, j].log().gather(1, frame), glide).exp()
        strength = _smooth(layer["gain"][:, :, j].gather(1, frame), glide)
        width = layer["width"][:, :, j].gather(1, frame)
        gain += strength[:, :, None] / (1 + ((centre - at[:, :, None]) / width[:, :, None]) ** 2)
    return gain * (centre.clamp_min(50) / 500) ** -layer["tilt"][:, None, None]


def _reverberate(power: Tensor, seconds: Tensor, wet: Tensor) -> Tensor:
    """Late reverberation of `seconds` to -60 dB: power that decays exponentially in every band."""
    decay = torch.exp(-13.8 * 0.01 / seconds)[:, None]
    out, tail = power.clone(), torch.zeros_like(power[:, 0])
    for t in range(1, power.shape[1]):
        tail = (tail + power[:, t - 1]) * decay
        out[:, t] += wet[:, None] * tail
    return out
