"""Series from .npy files."""

from __future__ import annotations

import html
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tl_core import DecodeError, Loader, Source

CONTENT = 32  # values that a series is reduced to where no network looks at it
_header = threading.Lock()  # decode() runs in threads, and Python 3.11's parser, which NumPy reads headers by, can't


def noise(series: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    drawn = rng.standard_normal(len(series), dtype=np.float32)
    return series + drawn * np.float32(0.2 * severity * series.std())


def spikes(series: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    hit = rng.random(len(series)) < 0.02 * severity
    return np.where(hit, series + np.float32(5) * series.std(), series)


class SeriesLoader(Loader):
    """One-dimensional float arrays of at least eight values."""

    modality = "timeseries"
    extensions = frozenset({".npy"})
    corruptions: ClassVar = {"noise": noise, "spikes": spikes}

    def decode(self, source: Source) -> np.ndarray:
        path = Path(source)
        if path.stat().st_size == 0:
            raise DecodeError("empty file")
        try:
            with _header:
                series = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DecodeError(f"unreadable: {str(error).splitlines()[0]}") from error
        if series.ndim != 1 or len(series) < 8:
            raise DecodeError(f"expected a series of 8 values or more, found shape {list(series.shape)}")
        if not np.isfinite(series).all():
            raise DecodeError("holds values that are no numbers")
        return series.astype(np.float32)

    def augment(self, decoded: Any, rng: np.random.Generator) -> Any:
        return decoded * np.float32(rng.uniform(0.9, 1.1))

    def plain(self, decoded: Any) -> np.ndarray:
        """The series at 32 places, and how strong each of its frequencies is: float32 [49]."""
        places = np.linspace(0, len(decoded) - 1, CONTENT)
        values = np.interp(places, np.arange(len(decoded)), decoded)
        return np.concatenate([values, np.abs(np.fft.rfft(values))]).astype(np.float32)

    def libraries(self) -> Mapping[str, str]:
        return {"numpy": np.__version__}

    def render(self, source: Source) -> str:
        series = self.decode(source)
        low, high = float(series.min()), float(series.max())
        points = " ".join(
            f"{200 * i / (len(series) - 1):.1f},{40 - 36 * (v - low) / ((high - low) or 1):.1f}"
            for i, v in enumerate(series)
        )
        name = html.escape(Path(source).name)
        return (
            f'<svg viewBox="0 0 200 44" role="img" aria-label="{name}">'
            f'<polyline fill="none" stroke="currentColor" points="{points}"/></svg>'
        )
