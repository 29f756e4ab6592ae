"""From a decoded sound to the fixed windows that an encoder takes.

Resampling: soxr, quality HQ, mono. Windows: a clip longer than a window is cut at multiples of the window's width,
and the last window is shifted back to end where the clip ends, so that every sample is seen. A clip's embedding is
the mean over its windows. How a clip shorter than a window is filled up is each front end's own rule, below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tl_audio.spec_augment import spec_augment
from tl_core import State, UserError

LADDER_START = 0.25  # seconds of the shortest width
LADDER_STEP = 1.1  # each width over the one before: a clip is filled up by at most a tenth
_KALDI_LOW = 20.0  # Hz, where Kaldi's filter banks begin
BATCH_SECONDS = 2.0  # of sound in a forward batch: a CPU gains nothing by more, and a filled-up rest costs little


def resampled(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """float32 [T] at another rate. A sound too short for one sample there becomes one zero sample."""
    if rate != target:
        import soxr

        samples = soxr.resample(samples, rate, target, quality="HQ")
    return samples if len(samples) else np.zeros(1, np.float32)


def resampler() -> str:
    """Name, version and quality of the resampler, as it stands in fingerprints."""
    import soxr

    return f"soxr {soxr.__version__} HQ"


def decoder() -> str:
    """Name and version of the decoder, as it stands in fingerprints: lossy formats decode to its taste."""
    import soundfile

    return f"libsndfile {soundfile.__libsndfile_version__}"


def extractor() -> str:
    """Name and version of the library whose extractors make spectrograms, as it stands in fingerprints."""
    import transformers

    return f"transformers {transformers.__version__}"


def cut(samples: np.ndarray, width: int, hop: int | None = None) -> list[np.ndarray]:
    """Windows of `width` along the first axis, every `hop`, the last shifted back to the end; short input whole."""
    return [samples[start : start + width] for start in cut_starts(len(samples), width, hop)]


def cut_starts(length: int, width: int, hop: int | None = None) -> list[int]:
    """Where cut() begins its windows."""
    return [0] if length <= width else [*range(0, length - width, hop or width), length - width]


@dataclass(frozen=True)
class Span:
    """The part of a clip that a window's map stands for.

    start, stop: seconds, past the clip's end where the window is filled up; band: lowest and highest Hz, which rows of
    the map share evenly in mel, the highest first; None where they are of no frequency.
    """

    start: float
    stop: float
    band: tuple[float, float] | None = None


def repeated(samples: np.ndarray, width: int) -> np.ndarray:
    """A short sound played again from its start until it fills `width` samples: float32, a copy."""
    filled = np.empty(width, np.float32)
    for start in range(0, width, len(samples)):
        filled[start : start + len(samples)] = samples[: width - start]
    return filled


@dataclass(frozen=True)
class FrontEnd(ABC):
    """How one encoder takes a sound: mono float32 samples [T] at `rate` Hz in, windows out."""

    rate: int

    @abstractmethod
    def windows(self, samples: np.ndarray) -> tuple[State, ...]:
        """The clip's windows, each of one of a few fixed shapes."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """JSON-able values that decide `windows`, for the fingerprint."""

    @abstractmethod
    def spans(self, samples: int) -> list[Span]:
        """What windows() of so many samples stand for."""

    def perturb(self, batch: State, rng: np.random.Generator) -> State:
        """A random variant of a batch of windows, for training; as they are where none is known."""
        return batch

    def bucket(self, window: State) -> int:
        """The window's width where there are several."""
        return 0

    def rows(self, bucket: int) -> int:
        """Rows of a forward batch: a long window alone keeps a CPU busy."""
        return 1


@dataclass(frozen=True)
class Waveform(FrontEnd):
    """Raw samples, for encoders that convolve over them (wav2vec2 and its relatives).

    The clip is scaled to zero mean and unit variance where the encoder was trained so (`epsilon` set). A clip
    shorter than `seconds` goes to the next width of a ladder (from 0.25 s, each 1.1 times the last) and is filled
    up by repeating it from its start, which hardly moves the group norm that wav2vec2-base takes over time. Frames
    of the filling don't count: `frames` is the number of encoder frames that lie within the clip itself. (Cosine of
    centred features to those of the unfilled clip, small random networks, spoken digits: 0.999 by this rule, 0.94
    with steps of 1.25 and all frames counted, 0.3 with silence up to 10 s.)

    kernels: (width, stride) of the encoder's convolutions.
    """

    kernels: tuple[tuple[int, int], ...]
    epsilon: float | None
    seconds: float = 10.0
    ladder: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ladder", _ladder(self.rate, self.seconds))

    def windows(self, samples: np.ndarray) -> tuple[State, ...]:
        if self.epsilon is not None:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + np.float32(self.epsilon))
        return tuple(self._window(part) for part in cut(samples, self.ladder[-1]))

    def _window(self, part: np.ndarray) -> State:
        width = next(width for width in self.ladder if width >= len(part))
        filled = torch.from_numpy(repeated(part, width))
        return {"x": filled, "frames": torch.tensor(max(1, self.encoder_frames(len(part))))}

    def spans(self, samples: int) -> list[Span]:
        longest = self.ladder[-1]
        width = next((width for width in self.ladder if width >= samples), longest) / self.rate
        return [Span(start / self.rate, start / self.rate + width) for start in cut_starts(samples, longest)]

    def encoder_frames(self, samples: int) -> int:
        """Frames that the encoder gives for so many samples."""
        for width, stride in self.kernels:
            samples = (samples - width) // stride + 1
        return samples

    def facts(self) -> dict[str, Any]:
        return {
            "normalise": "none"
            if self.epsilon is None
            else f"clip to zero mean, unit variance, epsilon {self.epsilon}",
            "window": f"{self.seconds} s, last shifted back",
            "padding": f"repeat to the next width from {LADDER_START} s, each {LADDER_STEP} times the last",
            "pooling": "mean over the clip's frames, then over windows",
        }

    def bucket(self, window: State) -> int:
        return int(window["x"].shape[0])

    def rows(self, bucket: int) -> int:
        return max(1, int(BATCH_SECONDS * self.rate) // bucket)


@dataclass(frozen=True)
class WhisperMel(FrontEnd):
    """Log-mel spectrogram of 30 s, by transformers' own extractor.

    A shorter clip is followed by silence, as Whisper was trained; encoder frames of the silence don't count
    (`frames`). positions: encoder frames of a full window.
    """

    extractor: Any
    positions: int

    def __post_init__(self) -> None:
        if self.extractor.nb_max_frames != 2 * self.positions:
            raise UserError(
                f"preprocessor_config.json gives {self.extractor.nb_max_frames} mel frames a window, config.json "
                f"wants {2 * self.positions}: the two files belong to different models"
            )

    def windows(self, samples: np.ndarray) -> tuple[State, ...]:
        return tuple(self._window(part) for part in cut(samples, self.extractor.n_samples))

    def _window(self, part: np.ndarray) -> State:
        mel = self.extractor(part, sampling_rate=self.rate, return_tensors="np")["input_features"][0]
        frames = -(-len(part) // (2 * self.extractor.hop_length))  # the encoder halves the mel frames
        return {
            "x": torch.from_numpy(mel.astype(np.float32, copy=False)),
            "frames": torch.tensor(min(frames, self.positions)),
        }

    def spans(self, samples: int) -> list[Span]:
        starts = cut_starts(samples, self.extractor.n_samples)
        return [Span(start / self.rate, (start + self.extractor.n_samples) / self.rate) for start in starts]

    def perturb(self, batch: State, rng: np.random.Generator) -> State:
        return {**batch, "x": spec_augment(batch["x"], rng, time=2, mel=1)}  # [B, mels, frames]

    def facts(self) -> dict[str, Any]:
        numbers = ("feature_size", "n_fft", "hop_length", "chunk_length", "padding_value", "dither")
        return {
            "extractor": extractor(),
            "mel": {name: getattr(self.extractor, name) for name in numbers},
            "window": f"{self.extractor.chunk_length} s, last shifted back",
            "padding": "silence after the clip",
            "pooling": "mean over the clip's frames, then over windows",
        }


@dataclass(frozen=True)
class AstMel(FrontEnd):
    """Kaldi filter banks of 10.24 s, by transformers' own extractor.

    A shorter clip is followed by zero frames, as the Audio Spectrogram Transformer was trained; one under 25 ms
    (a single frame) by zero samples up to there.
    """

    extractor: Any

    def windows(self, samples: np.ndarray) -> tuple[State, ...]:
        frame = self.rate // 40
        samples = np.pad(samples, (0, max(0, frame - len(samples))))
        parts = cut(samples, self.extractor.max_length * self.rate // 100)  # a frame every 10 ms
        return tuple({"x": self._banks(part)} for part in parts)

    def spans(self, samples: int) -> list[Span]:
        width, band = self.extractor.max_length * self.rate // 100, (_KALDI_LOW, self.rate / 2)
        return [Span(at / self.rate, (at + width) / self.rate, band) for at in cut_starts(samples, width)]

    def _banks(self, part: np.ndarray) -> torch.Tensor:
        part = np.array(part, np.float32)  # a copy: torch warns about read-only memory
        banks = self.extractor(part, sampling_rate=self.rate, return_tensors="np")["input_values"][0]
        return torch.from_numpy(banks.astype(np.float32, copy=False))  # [frames, mels]

    def perturb(self, batch: State, rng: np.random.Generator) -> State:
        return {**batch, "x": spec_augment(batch["x"], rng, time=1, mel=2)}  # [B, frames, mels]

    def facts(self) -> dict[str, Any]:
        numbers = ("num_mel_bins", "max_length", "do_normalize", "mean", "std")
        return {
            "extractor": extractor(),
            "mel": {name: getattr(self.extractor, name) for name in numbers},
            "window": f"{self.extractor.max_length} frames of 10 ms, last shifted back",
            "padding": "zero frames after the clip",
            "pooling": "mean of the class and distillation tokens, then over windows",
        }


def preprocessing(front_end: FrontEnd, loader_version: int) -> Mapping[str, Any]:
    """All that happens to a sound before the network and after it, as fingerprints hold it."""
    return {
        "loader": loader_version,
        "decoder": decoder(),
        "channels": "mean",
        "resampler": resampler(),
        "rate": front_end.rate,
        **front_end.facts(),
    }


def stacked(windows: Sequence[State]) -> State:
    """Windows of one shape as a batch."""
    return {key: torch.stack([window[key] for window in windows]) for key in windows[0]}


def _ladder(rate: int, seconds: float) -> tuple[int, ...]:
    """Widths in samples from LADDER_START to `seconds`, in whole steps of 20 ms (an encoder frame)."""
    frame = max(1, rate // 50)
    widths = []
    width = LADDER_START
    while width < seconds:
        widths.append(round(width * rate / frame) * frame)
        width *= LADDER_STEP
    return (*widths, round(seconds * rate))
