"""Near copies of samples: what happens to a picture, a text or a sound on its second way into a data set."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Change = Callable[[Any, np.random.Generator], Any]
"""From a decoded sample, as the modality's loader gives it, to its near copy."""


def _encoded(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As a JPEG of quality 50 to 80."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=int(rng.integers(50, 81)))
    return np.asarray(Image.open(stream).convert("RGB")).copy()


def _resized(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At 50 to 80% of its size."""
    from PIL import Image

    share, (height, width) = rng.uniform(0.5, 0.8), image.shape[:2]
    small = Image.fromarray(image).resize((max(2, round(width * share)), max(2, round(height * share))))
    return np.asarray(small).copy()


def _cropped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Without up to 5% of its width and height on each side."""
    height, width = image.shape[:2]
    top, bottom = (rng.uniform(0, 0.05, 2) * height).astype(int)
    left, right = (rng.uniform(0, 0.05, 2) * width).astype(int)
    return np.ascontiguousarray(image[top : height - bottom, left : width - right])


def _lit(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """10 to 25% brighter or darker."""
    factor = 1 + rng.choice((-1, 1)) * rng.uniform(0.1, 0.25)
    lit: np.ndarray = np.rint(image.astype(np.float32) * factor).clip(0, 255).astype(np.uint8)
    return lit


def _recased(text: str, rng: np.random.Generator) -> str:
    """In capitals, or without any."""
    return text.upper() if rng.random() < 0.5 else text.lower()


def _repunctuated(text: str, rng: np.random.Generator) -> str:
    """Without its last mark, or with two marks that it had not."""
    bare = text.rstrip(" .?!")
    if bare and bare != text and rng.random() < 0.5:
        return bare
    return f"{bare or text} {rng.choice(('!!', '...', '??'))}"


def _mistyped(text: str, rng: np.random.Generator) -> str:
    """With one or two letters left out, doubled, or swapped with the next."""
    letters = list(text)
    for _ in range(int(rng.integers(1, 3))):
        at = int(rng.integers(max(1, len(letters) - 1)))
        kind = int(rng.integers(3))
        if kind == 0 and len(letters) > 3:
            del letters[at]
        elif kind == 1:
            letters.insert(at, letters[at])
        else:
            letters[at : at + 2] = letters[at : at + 2][::-1]
    return "".join(letters)


def _louder(clip: Any, rng: np.random.Generator) -> Any:
    """By 3 to 6 dB up or down."""
    gain = 10.0 ** (rng.choice((-1, 1)) * rng.uniform(3, 6) / 20)
    return dataclasses.replace(clip, samples=(clip.samples * gain).astype(np.float32))


def _shifted(clip: Any, rng: np.random.Generator) -> Any:
    """2 to 8 ms later, silence before."""
    late = max(1, round(rng.uniform(0.002, 0.008) * clip.rate))
    silence = np.zeros(late, np.float32)
    return dataclasses.replace(clip, samples=np.concatenate([silence, clip.samples[:-late]]))


def _rounded(clip: Any, rng: np.random.Generator) -> Any:
    """Quieter by up to 1 dB, clipped and rounded to 16 bits, as another program saves it."""
    gain = 10.0 ** (-rng.uniform(0.1, 1) / 20)
    steps = np.rint((clip.samples * gain).clip(-1, 1) * 32767)
    return dataclasses.replace(clip, samples=(steps / 32768).astype(np.float32))


CHANGES: Mapping[str, Mapping[str, Change]] = {
    "image": {"re-encoded": _encoded, "resized": _resized, "cropped": _cropped, "brightness": _lit},
    "text": {"case": _recased, "punctuation": _repunctuated, "typos": _mistyped},
    "audio": {"gain": _louder, "shift": _shifted, "16 bit": _rounded},
}
"""By modality, what a near copy has gone through."""
