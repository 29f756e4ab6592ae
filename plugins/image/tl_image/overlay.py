"""How an explained picture is shown: as it is, and in greys under what spoke for each class."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from tl_core import Heat, Overlay, Saliency, coloured

SIDE = 224  # pixels of the longer side
MAX_BYTES = 16_000  # of each JPEG: a picture and two heat maps stay below 65 kB as text


def overlay(picture: np.ndarray, name: str, saliencies: Sequence[Saliency]) -> Overlay:
    """picture: uint8 [H, W, 3]; name: of its file."""
    image = _scaled(picture)
    figures = [_figure(image, name, "the picture")]
    texts = []
    for saliency in saliencies:
        heat = _on_picture(saliency.heats[0], image.shape[:2])
        texts.append(where(heat))
        alt = f"{name}: what spoke for {saliency.title} lies {texts[-1]} (outlined: above half of the peak)"
        grey = image @ np.array([0.299, 0.587, 0.114], np.float32)  # [H, W]
        figures.append(_figure(coloured(grey, heat), alt, f"{saliency.title}: {texts[-1]}"))
    return Overlay(f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(figures)}</div>', tuple(texts))


def where(heat: np.ndarray) -> str:
    """In words where most of the heat lies: `mostly upper left (half of it on 6% of the picture)`.

    heat: [H, W], not a number where the network sees nothing.
    """
    mass = np.nan_to_num(heat).clip(min=0)
    if not mass.any():
        return "nowhere: all of it speaks against"
    ranked = np.sort(mass, axis=None)[::-1]
    half = int(np.searchsorted(np.cumsum(ranked), ranked.sum() / 2)) + 1
    share = half / mass.size
    within = f"half of it on {max(1, round(100 * share))}% of the picture"
    if share > 0.25:
        return f"all over the picture ({within})"
    rows, columns = np.nonzero(mass >= ranked[half - 1])
    vertical = _third((rows.mean() + 0.5) / mass.shape[0], "upper", "lower")
    horizontal = _third((columns.mean() + 0.5) / mass.shape[1], "left", "right")
    return f"mostly {' '.join(filter(None, [vertical, horizontal])) or 'in the middle'} ({within})"


def _third(share: float, first: str, last: str) -> str:
    return first if share < 0.4 else last if share > 0.6 else ""


def _scaled(picture: np.ndarray) -> np.ndarray:
    from PIL import Image

    height, width = picture.shape[:2]
    ratio = SIDE / max(height, width)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))


def _on_picture(heat: Heat, shape: tuple[int, int]) -> np.ndarray:
    """A map on the shown picture's pixels, float32 [H, W], not a number outside what went in."""
    from PIL import Image

    canvas = np.full(shape, np.nan, np.float32)
    top, left, bottom, right = (round(share * side) for share, side in zip(heat.place, shape * 2, strict=True))
    size = max(1, right - left), max(1, bottom - top)
    # bilinear: a bicubic filter would make peaks and dips that were not there
    fine = np.asarray(Image.fromarray(heat.values).resize(size, Image.Resampling.BILINEAR))
    rows, columns = (slice(max(0, a), max(0, min(a + n, side))) for a, n, side in
                     ((top, size[1], shape[0]), (left, size[0], shape[1])))  # fmt: skip
    canvas[rows, columns] = fine[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return canvas


def _figure(image: np.ndarray, alt: str, caption: str) -> str:
    height, width = image.shape[:2]
    data = base64.b64encode(_jpeg(image)).decode()
    return (
        f'<figure style="margin:0;width:{SIDE}px;max-width:100%"><img src="data:image/jpeg;base64,{data}" '
        f'alt="{html.escape(alt, quote=True)}" '
        f'width="{width}" height="{height}"><figcaption>{html.escape(caption)}</figcaption></figure>'
    )


def _jpeg(image: np.ndarray) -> bytes:
    """The best quality that is small enough, or the worst."""
    from PIL import Image

    picture: Any = Image.fromarray(image)
    data = b""
    for quality in (85, 70, 50, 30, 10):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        data = buffer.getvalue()
        if len(data) <= MAX_BYTES:
            break
    return data
