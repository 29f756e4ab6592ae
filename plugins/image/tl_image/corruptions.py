"""What goes wrong with pictures on their way from a lens to a model, at five severities.

Kinds and strengths are those of ImageNet-C (Hendrycks and Dietterich, ICLR 2019), which are meant for pictures of 224
pixels: blur, noise and resolution go by the shorter side, so that a large picture is harmed as much as a small one.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from tl_core import Corrupt

SIDE = 224  # pixels of the shorter side at which the strengths below are meant

_SIGMA = (1, 2, 3, 4, 6)  # pixels
_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # of full scale
_QUALITY = (25, 18, 15, 10, 7)
_BRIGHTER = (0.1, 0.2, 0.3, 0.4, 0.5)  # of full scale
_SMALLER = (0.6, 0.5, 0.4, 0.3, 0.25)


def blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Out of focus: a Gaussian blur."""
    from PIL import Image, ImageFilter

    sigma = _SIGMA[severity - 1] * min(image.shape[:2]) / SIDE
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Too little light: Gaussian noise, its grain a pixel of the picture at 224 pixels or larger."""
    height, width = image.shape[:2]
    grain = max(1, min(height, width) // SIDE)
    drawn = rng.standard_normal((-(-height // grain), -(-width // grain), 3), dtype=np.float32)
    drawn = drawn.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width]  # [H, W, 3]
    return _bytes(image + drawn * np.float32(255 * _NOISE[severity - 1]))


def jpeg(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Compressed too hard: JPEG of low quality."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_QUALITY[severity - 1])
    with Image.open(buffer) as back:
        return np.array(back)


def overexposure(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Exposed too long: more light of the same hue, until it is white."""
    pixels = image.astype(np.float32)
    value = pixels.max(axis=2, keepdims=True)  # [H, W, 1]
    more = np.minimum(value + np.float32(255 * _BRIGHTER[severity - 1]), 255)
    return _bytes(np.where(value > 0, pixels * (more / np.maximum(value, 1)), more))


def low_resolution(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Taken from afar or sent as a thumbnail: fewer pixels, shown at the former size."""
    from PIL import Image

    height, width = image.shape[:2]
    share = min(1.0, SIDE / min(height, width)) * _SMALLER[severity - 1]
    small = (max(1, round(width * share)), max(1, round(height * share)))
    picture = Image.fromarray(image).resize(small, Image.Resampling.BOX)
    return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(pixels).clip(0, 255).astype(np.uint8))


CORRUPTIONS: Mapping[str, Corrupt] = {
    "blur": blur,
    "noise": noise,
    "JPEG compression": jpeg,
    "overexposure": overexposure,
    "low resolution": low_resolution,
}
