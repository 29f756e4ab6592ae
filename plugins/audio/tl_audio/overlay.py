"""How an explained sound is shown: a player, and spectrograms coloured by what spoke for each class."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np

from tl_audio.frontends import Span, resampled
from tl_audio.loader import Clip
from tl_core import Heat, Overlay, Saliency, coloured

WIDTH, HEIGHT = 320, 96  # pixels of a spectrogram
MAX_SECONDS = 10.0  # of the player
RATES = (8000, 11_025, 12_000, 16_000)  # Hz that an MP3 may have, as far as it is worth it; WAV would take 400 kB
_BAND = (50.0, 8000.0)  # Hz that are shown where the network names none
_RANGE = 60.0  # dB from the loudest to what is shown as silence
_FFT = 1024


def overlay(clip: Clip, saliencies: Sequence[Saliency]) -> Overlay:
    """The clip as it is heard, and once for each saliency as it was judged."""
    texts, figures = [], []
    for saliency in saliencies:
        band = next((heat.place.band for heat in saliency.heats if heat.place.band), None)
        shown = band or (_BAND[0], min(_BAND[1], clip.rate / 2))
        heat = on_clip(saliency.heats, clip.seconds)
        texts.append(where(heat, clip.seconds, band))
        alt = f"Spectrogram: what spoke for {saliency.title} lies {texts[-1]} (outlined: above half of the peak)"
        figures.append(_figure(coloured(_grey(clip, shown), heat), alt, f"{saliency.title}: {texts[-1]}"))
    style = "display:flex;flex-direction:column;gap:8px"
    return Overlay(f'<div style="{style}">{_player(clip)}{"".join(figures)}</div>', tuple(texts))


def on_clip(heats: Sequence[Heat], seconds: float) -> np.ndarray:
    """The windows' maps on the picture of the whole clip, float32 [HEIGHT, WIDTH]; their mean where windows overlap.

    Not a number where no window reaches. A map without frequencies goes over all of them.
    """
    from PIL import Image

    total, count = np.zeros((HEIGHT, WIDTH), np.float32), np.zeros(WIDTH, np.float32)
    for heat in heats:
        span: Span = heat.place
        first, last = (round(at / seconds * WIDTH) for at in (span.start, span.stop))
        stop = min(last, WIDTH)
        if first >= stop:
            continue
        rows, columns = heat.values.shape
        seen = 0.0, 0.0, columns * (stop - first) / (last - first), float(rows)  # of a tiny clip next to nothing
        fine = Image.fromarray(heat.values).resize((stop - first, HEIGHT), Image.Resampling.BILINEAR, box=seen)
        total[:, first:stop] += np.asarray(fine)
        count[first:stop] += 1
    return np.divide(total, count, out=np.full_like(total, np.nan), where=np.broadcast_to(count > 0, total.shape))


def where(heat: np.ndarray, seconds: float, band: tuple[float, float] | None) -> str:
    """In words where half of the heat lies: `mostly from 0.2 to 0.5 s, 800 to 2,100 Hz`."""
    mass = np.nan_to_num(heat).clip(min=0)
    if not mass.any():
        return "nowhere: all of it speaks against"
    first, last = _half(mass.sum(axis=0))
    if (last - first) > 0.4 * WIDTH:
        text = "all over the sound"
    else:
        text = f"mostly from {first / WIDTH * seconds:.2f} to {last / WIDTH * seconds:.2f} s"
    top, bottom = _half(mass[:, first:last].sum(axis=1))
    if band is None or (bottom - top) > 0.4 * HEIGHT:
        return text
    high, low = _frequencies(band, np.array([top, bottom]))
    return f"{text}, {_rounded(low)} to {_rounded(high)} Hz"


def _half(mass: np.ndarray) -> tuple[int, int]:
    """The shortest stretch that holds half of the mass: from, to."""
    sums = np.concatenate([[0.0], np.cumsum(mass, dtype=np.float64)])
    stops = np.searchsorted(sums, sums + sums[-1] / 2)
    lengths = np.where(stops < len(sums), stops - np.arange(len(sums)), len(sums))
    start = int(lengths.argmin())
    return start, int(stops[start])


def _rounded(hertz: float) -> str:
    """Two digits: the edges of a map are no more exact."""
    return f"{float(f'{hertz:.2g}'):,.0f}"


def _frequencies(band: tuple[float, float], rows: np.ndarray) -> np.ndarray:
    """Hz at the upper edges of a picture's rows, from the highest in even steps of mel (HTK's)."""
    low, high = (np.log1p(edge / 700.0) for edge in band)
    return np.asarray(700.0 * np.expm1(high + (low - high) * rows / HEIGHT))


def _grey(clip: Clip, band: tuple[float, float]) -> np.ndarray:
    """The clip's spectrogram, uint8 [HEIGHT, WIDTH], loud is bright."""
    centres = np.linspace(0, len(clip.samples), 2 * WIDTH + 1)[1::2].astype(np.int64)
    padded = np.pad(clip.samples, _FFT)
    frames = padded[centres[:, None] + np.arange(_FFT // 2, _FFT // 2 + _FFT)] * np.hanning(_FFT).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2  # [WIDTH, _FFT / 2 + 1]
    places = _frequencies(band, np.arange(HEIGHT) + 0.5) / clip.rate * _FFT
    rows = np.stack([np.interp(places, np.arange(power.shape[1]), column, right=0.0) for column in power], axis=1)
    loud = 10 * np.log10(rows + 1e-10)
    return np.asarray(255 * ((loud - loud.max()) / _RANGE + 1).clip(0, 1), np.uint8)


def _player(clip: Clip) -> str:
    import soundfile

    rate = next((rate for rate in RATES if rate >= clip.rate), RATES[-1])
    samples = resampled(clip.samples[: int(MAX_SECONDS * clip.rate)], clip.rate, rate)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1.0, 1.0), rate, format="MP3", subtype="MPEG_LAYER_III")
    sound = base64.b64encode(buffer.getvalue()).decode("ascii")
    part = "" if clip.seconds <= MAX_SECONDS else f" (the first {MAX_SECONDS:.0f} of {clip.seconds:.1f} s)"
    label = f"the sound{part}"
    return f'<audio controls preload="none" aria-label="{label}" src="data:audio/mpeg;base64,{sound}"></audio>'


def _figure(picture: np.ndarray, alt: str, caption: str) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<figure style="margin:0"><img src="data:image/jpeg;base64,{data}" alt="{html.escape(alt, quote=True)}" '
        f'width="{WIDTH}" height="{HEIGHT}"><figcaption>{html.escape(caption)}</figcaption></figure>'
    )
