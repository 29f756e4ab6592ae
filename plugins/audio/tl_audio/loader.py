"""The door for sounds: checking, decoding and augmenting audio files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tl_audio import fit
from tl_audio.corruptions import CORRUPTIONS
from tl_core import BackboneSpec, DecodeError, Facts, FitWarning, Loader, Overlay, Saliency, Source

MAX_SECONDS = 3600.0  # an hour of mono float32 at 48 kHz takes 0.7 GB; longer recordings are cut by the user
RATES = (100, 1_000_000)  # Hz; outside it a header is damaged
_BLOCK = 1 << 18  # frames decoded at once, so that many channels never lie in memory for the whole clip

_PLAINLY = {  # what libsndfile says of damaged MP3 files
    "File does not exist or is not a regular file (possibly a pipe?)": "the decoder finds no sound in it",
    "Unspecified internal error": "the decoder gives up within it",
}


@dataclass(frozen=True, eq=False)
class Clip:
    """A decoded sound. samples: float32 [T], mono, full scale is 1; rate: Hz, the file's own."""

    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.samples) / self.rate


class AudioLoader(Loader):
    """WAV, FLAC, Ogg (Vorbis, Opus), MP3 and AIFF by libsndfile; any rate, sample format and channel count.

    Channels are averaged to mono; the rate stays the file's own, each backbone resamples to its own. Silence is a
    sound like any other. Refused: empty, truncated, unreadable files, those without samples or with a sample that
    is not finite, and clips longer than MAX_SECONDS.
    """

    modality: ClassVar[str] = "audio"
    extensions: ClassVar[frozenset[str]] = frozenset(
        {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"}
    )
    version: ClassVar[int] = 1
    corruptions = CORRUPTIONS

    def decode(self, source: Source) -> Clip:
        path = Path(source)
        try:
            if path.stat().st_size == 0:
                raise DecodeError("empty file")
            clip = _read(path)
        except OSError as error:
            raise DecodeError(f"unreadable: {error.strerror or error}") from error
        if not np.isfinite(clip.samples).all():
            raise DecodeError("non-finite samples: NaN or infinity")
        return clip

    def augment(self, decoded: Any, rng: np.random.Generator) -> Clip:
        """Gain of -6 to 6 dB, a circular shift of at most 5% and white noise 20 to 40 dB below the clip's level."""
        gain = 10.0 ** (rng.uniform(-6.0, 6.0) / 20.0)
        shift = round(rng.uniform(-0.05, 0.05) * len(decoded.samples))
        distance = 10.0 ** (-rng.uniform(20.0, 40.0) / 20.0)
        samples = np.roll(decoded.samples, shift)
        level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
        noise = rng.standard_normal(len(samples), dtype=np.float32) * np.float32(level * distance)
        return Clip((samples + noise) * np.float32(gain), decoded.rate)

    def measure(self, source: Source) -> Facts:
        """Rate, channels, length, and what a backbone's rate or the mix to mono would lose."""
        import soundfile

        from tl_audio.containers import promises_frames
        from tl_audio.quiet import quiet_c_stderr

        path = Path(source)
        try:
            stated = promises_frames(path)
            with quiet_c_stderr(), soundfile.SoundFile(path) as sound:
                seconds = sound.frames / sound.samplerate if stated else self.decode(source).seconds
                return fit.measure(sound, seconds)
        except OSError as error:
            raise DecodeError(f"unreadable: {error.strerror or error}") from error
        except soundfile.LibsndfileError as error:
            raise DecodeError(_reason(path, error.error_string)) from error

    def misfits(self, spec: BackboneSpec, facts: Sequence[Facts]) -> list[FitWarning]:
        """Rates below or above the backbone's, channels that cancel out, clips too long or too short for it."""
        from tl_audio.catalogue import catalogue

        return fit.misfits(spec, facts, catalogue)

    def plain(self, decoded: Any) -> np.ndarray:
        """How loud each of 64 bands of frequencies is, and how that changes, float32 [448]."""
        from tl_audio.plain import plain

        return plain(decoded)

    def libraries(self) -> Mapping[str, str]:
        import soundfile
        import soxr

        return {"libsndfile": soundfile.__libsndfile_version__, "soxr": soxr.__version__}

    def render(self, source: Source) -> str:
        """A player and a drawn waveform. Raises DecodeError where the source is unusable."""
        from tl_audio.player import player

        return player(self.decode(source))

    def overlay(self, source: Source, saliencies: Sequence[Saliency]) -> Overlay:
        """A player, and for each saliency a spectrogram in greys, coloured where it spoke for its class."""
        from tl_audio.overlay import overlay

        return overlay(self.decode(source), saliencies)


def _read(path: Path) -> Clip:
    """Decode the whole file to mono. Raises DecodeError with the reason, OSError where it can't be opened."""
    import soundfile

    from tl_audio.containers import broken_promise, promises_frames
    from tl_audio.quiet import quiet_c_stderr

    with path.open("rb"):  # the system's own words for a missing or forbidden file
        pass
    try:
        with quiet_c_stderr(), soundfile.SoundFile(path) as sound:
            promised, rate, kind = sound.frames, sound.samplerate, sound.format
            if not RATES[0] <= rate <= RATES[1]:
                raise DecodeError(f"rate of {rate} Hz (allowed: {RATES[0]} to {RATES[1]})")
            if promised > MAX_SECONDS * rate and promises_frames(path):
                raise DecodeError(_too_long(promised / rate))
            broken = broken_promise(path)
            if broken:
                raise DecodeError(f"truncated {kind}: {broken}")
            blocks: list[np.ndarray] = []
            while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
                blocks.append(_mono(block))
                if len(blocks) * _BLOCK > MAX_SECONDS * rate + _BLOCK:
                    raise DecodeError(_too_long(len(blocks) * _BLOCK / rate))
    except soundfile.LibsndfileError as error:
        raise DecodeError(_reason(path, error.error_string)) from error
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if len(samples) < promised and promises_frames(path):
        raise DecodeError(f"truncated {kind}: the header promises {promised} frames, {len(samples)} are there")
    if not len(samples):
        raise DecodeError("no samples")
    return Clip(samples, rate)


def _mono(block: np.ndarray) -> np.ndarray:
    """The channels' mean: float32 [T, channels] -> [T]."""
    first, *others = block.T
    if len(others) == 1:  # bit for bit the mean, which takes thirty times as long: longer than decoding a WAV
        mono = (first + others[0]) * np.float32(0.5)
    else:
        mono = block.mean(axis=1, dtype=np.float32) if others else first
    return np.asarray(mono)


def _too_long(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes long (allowed: {MAX_SECONDS / 60:.0f}); cut it into shorter clips"


def _reason(path: Path, message: str) -> str:
    """The decoder's complaint in one line, told apart: a damaged sound or no sound at all."""
    message = " ".join(message.split()).rstrip(".") or "damaged"
    message = _PLAINLY.get(message, message)
    with path.open("rb") as stream:
        head = stream.read(16)
    known = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"fLaC", b"OggS", b"ID3")
    if head.startswith(known) or (head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0):
        return f"truncated or damaged: {message}"
    return f"not an audio file: {message}"
