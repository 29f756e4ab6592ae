"""Decoding photos that are larger than needed at a fraction of their size, which JPEG's block transform gives away."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

MARGIN = 2.5
"""A scaled photo is at least this much larger than what it is resized to, on both sides.

Resized and cropped, its pixels differ from those of whole decoding by 0.9 of 255 on average at worst (mosaics of tiny
photos; of photos 0.4), features of an ImageNet MobileNetV2 by a cosine of 0.9989 at worst. With a margin of 2 it is
1.5 and 0.995, of 3 0.7 and 0.9987, of 4 0.4 and 0.9993.
"""


def rule(need: tuple[int, int] | None) -> str:
    """How JPEGs are decoded, for a backbone's identity."""
    return f"1/2, 1/4 or 1/8 while {MARGIN}x as large as needed" if need else "whole"


def scale(size: tuple[int, int], need: tuple[int, int]) -> int:
    """By how much to divide a photo's sides while decoding: 8, 4, 2 or 1. Both sizes are (height, width).

    Only what divides both sides: any other scaling would stretch the picture by a part of a pixel, which does more
    harm than the scaling itself.
    """
    for divisor in (8, 4, 2):
        if all(n % divisor == 0 and n >= MARGIN * wanted * divisor for n, wanted in zip(size, need, strict=True)):
            return divisor
    return 1


def shrink(image: Image, need: tuple[int, int]) -> None:
    """Set an unread JPEG to be decoded at the scale for what is needed; its sides are taken as they are stored."""
    width, height = image.size
    divisor = scale((height, width), need)
    if divisor > 1:
        image.draft(None, (width // divisor, height // divisor))
